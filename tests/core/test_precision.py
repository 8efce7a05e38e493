"""In the precisions of real training the meta-gradient is the float64 one, as far as the precision goes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.families import (
    Family,
    conv_family,
    distance,
    fixed_rates,
    llama_family,
    llama_in_double,
    lora_family,
)
from innerloop.core.inner import SGD
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Reptile, Strategy
from innerloop.core.params import Params
from innerloop.core.task import Batch

STRATEGIES: dict[str, Callable[[Family], Strategy]] = {
    "exact": lambda f: Exact(InnerLoop(SGD(), fixed_rates(f, 2), 2)),
    "first order": lambda f: FirstOrder(InnerLoop(SGD(), fixed_rates(f, 2), 2)),
    "reptile": lambda f: Reptile(InnerLoop(SGD(max_norm=0.5), fixed_rates(f, 2), 2)),
    "implicit": lambda f: Implicit(InnerLoop(SGD(), fixed_rates(f, 2), 2, proximal=5.0), iterations=3),
}
# Steps small enough that rounding is not blown up by the curvature of so small a net.
GENTLE: dict[str, Callable[[Family], Strategy]] = {
    "exact": lambda f: Exact(InnerLoop(SGD(), fixed_rates(f, 2, 0.1), 2)),
    "first order": lambda f: FirstOrder(InnerLoop(SGD(), fixed_rates(f, 2, 0.1), 2)),
    "reptile": lambda f: Reptile(InnerLoop(SGD(), fixed_rates(f, 2, 0.1), 2)),
}


def as_float64(gradient: Params) -> Params:
    return {name: tensor.double() for name, tensor in gradient.items()}


def in_precision(built: Family, base: torch.dtype, adapted: torch.dtype) -> Family:
    """The frozen parameters in one precision, the adapted ones in another; images follow the model."""
    for p in built.module.parameters():
        p.data = p.data.to(adapted if p.requires_grad else base)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        inputs, rest = batch
        return built.objective(module, (inputs.to(adapted) if inputs.is_floating_point() else inputs, rest))

    return Family(built.module, objective, built.draw, built.inner_rate)


@pytest.mark.parametrize(
    ("strategy", "make", "hessian_product", "tolerance"),
    [
        ("exact", FunctionalLearner, "reverse", 1e-4),
        ("exact", FunctionalLearner, "forward", 1e-4),
        ("exact", InPlaceLearner, "central", 2e-2),
        ("implicit", InPlaceLearner, "central", 2e-2),
        ("first order", InPlaceLearner, "reverse", 1e-4),
        ("reptile", FunctionalLearner, "reverse", 1e-4),
    ],
)
@pytest.mark.parametrize("family", [conv_family, llama_family, lora_family])
def test_float32(
    family: Callable[[], Family],
    strategy: str,
    make: type[FunctionalLearner] | type[InPlaceLearner],
    hessian_product: HessianProduct,
    tolerance: float,
) -> None:
    with llama_in_double():
        exact = family()
        task = exact.draw(1, 2)
        wanted = STRATEGIES[strategy](exact)(FunctionalLearner(exact.module, exact.objective), task)
    built = in_precision(family(), torch.float32, torch.float32)
    learner = make(built.module, built.objective, hessian_product=hessian_product)
    got = STRATEGIES[strategy](built)(learner, task)
    assert all(tensor.dtype == torch.float32 for tensor in got.gradient.values())
    assert distance(as_float64(got.gradient), wanted.gradient) < tolerance


def rounded(built: Family) -> Family:
    """The float64 model whose weights are those a bfloat16 model can hold."""
    for p in built.module.parameters():
        p.data = p.data.bfloat16().double()
    return built


@pytest.mark.parametrize("learner", ["functional", "in place", "vmapped"])
@pytest.mark.parametrize(("adapted", "tolerance"), [(torch.float32, 0.05), (torch.bfloat16, 0.2)])
@pytest.mark.parametrize("strategy", GENTLE)
def test_lora_on_a_bfloat16_model(
    strategy: str, adapted: torch.dtype, tolerance: float, learner: str
) -> None:
    """PEFT keeps the adapter in float32 beside a bfloat16 model; in bfloat16 inner steps are rounded too."""
    with llama_in_double():
        exact = rounded(lora_family())
        task = exact.draw(1, 2)
        wanted = GENTLE[strategy](exact)(FunctionalLearner(exact.module, exact.objective), task)
    built = in_precision(lora_family(), torch.bfloat16, adapted)
    on: Learner = {
        "functional": FunctionalLearner(built.module, built.objective),
        "in place": InPlaceLearner(built.module, built.objective),
        "vmapped": VmapLearner(built.module, built.objective, 1),
    }[learner]
    got = GENTLE[strategy](built)(on, on.bundle([task]))
    assert all(tensor.dtype == adapted for tensor in got.gradient.values())
    assert distance(as_float64(got.gradient), wanted.gradient) < tolerance


@pytest.mark.parametrize("adapted", [torch.float32, torch.bfloat16])
def test_a_central_difference_on_a_bfloat16_model(adapted: torch.dtype) -> None:
    """Coarse, but no noise: a width fit for the float32 adapter would be lost in the model's rounding."""
    exact = rounded(lora_family())
    batch = exact.draw(1, 1).query_batch
    direction = {name: torch.randn_like(t) for name, t in exact.theta().items()}
    with llama_in_double():
        wanted = FunctionalLearner(exact.module, exact.objective).hvp(exact.theta(), batch, direction)
    built = in_precision(lora_family(), torch.bfloat16, adapted)
    learner = InPlaceLearner(built.module, built.objective, hessian_product="central")
    got = learner.hvp(built.theta(), batch, {name: t.to(adapted) for name, t in direction.items()})
    assert distance(as_float64(got), wanted) < 0.5
