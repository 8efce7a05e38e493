"""Several tasks in one call give the sum of the single tasks, however they are cut into bundles."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from core.families import (
    Family,
    conv_family,
    distance,
    fixed_rates,
    image_loss,
    in_micro_batches,
    learned_rates,
    llama_family,
    lora_family,
)
from innerloop.core import params as vector
from innerloop.core.inner import SGD, Adam
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.learner.vmapped import stack_batches
from innerloop.core.metagrad import (
    Exact,
    FirstOrder,
    Implicit,
    Joint,
    MetaGradient,
    Reptile,
    Strategy,
    Unroll,
)
from innerloop.core.params import Params
from innerloop.core.task import FixedTask, Task

pytestmark = pytest.mark.usefixtures("float64_llama")

PER_TASK = ("support_loss", "query_loss_before", "query_loss")


def in_bundles(strategy: Strategy, learner: Learner, tasks: list[FixedTask]) -> list[MetaGradient]:
    size = learner.tasks_at_once
    return [
        strategy(learner, learner.bundle(tasks[start : start + size])) for start in range(0, len(tasks), size)
    ]


def summed(gradients: list[Params]) -> Params:
    total = gradients[0]
    for gradient in gradients[1:]:
        total = vector.add(total, gradient)
    return total


def joined(results: list[MetaGradient], quantity: str) -> Tensor:
    return torch.cat([getattr(result, quantity) for result in results])


def assert_same(bundled: list[MetaGradient], single: list[MetaGradient], tolerance: float = 1e-9) -> None:
    """Summed gradients, every task's losses and figures, and every task's final rule state."""
    assert distance(summed([r.gradient for r in bundled]), summed([r.gradient for r in single])) < tolerance
    if single[0].rate_gradient:
        assert (
            distance(summed([r.rate_gradient for r in bundled]), summed([r.rate_gradient for r in single]))
            < tolerance
        )
    for quantity in PER_TASK:
        torch.testing.assert_close(joined(bundled, quantity), joined(single, quantity), rtol=1e-9, atol=1e-12)
    for name in single[0].extras:
        got, wanted = (torch.cat([r.extras[name] for r in results]) for results in (bundled, single))
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)
    got_states, wanted_states = ([s for r in results for s in r.states] for results in (bundled, single))
    for got_state, wanted_state in zip(got_states, wanted_states, strict=True):
        torch.testing.assert_close(got_state, wanted_state, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("hessian_product", ["reverse", "forward", "central"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_exact_in_any_chunks(chunk: int, hessian_product: HessianProduct) -> None:
    """Five tasks: chunks of 2 and 3 leave a smaller last bundle."""
    built = conv_family()
    tasks = [built.draw(seed, 2) for seed in range(5)]
    strategy = Exact(InnerLoop(Adam(), learned_rates(built, 2, 0.1), 2))
    wanted = in_bundles(strategy, FunctionalLearner(built.module, built.objective), tasks)
    learner = VmapLearner(built.module, built.objective, chunk, hessian_product=hessian_product)
    assert_same(
        in_bundles(strategy, learner, tasks), wanted, tolerance=1e-4 if hessian_product == "central" else 1e-9
    )


STRATEGIES: dict[str, Callable[[Family], Strategy]] = {
    "exact": lambda f: Exact(InnerLoop(SGD(max_norm=0.5), learned_rates(f, 2), 2)),
    # Differentiating vmapped gradients of the conv net's norms from outside is where PyTorch goes wrong.
    "unroll": lambda f: Unroll(InnerLoop(SGD(max_norm=0.5), learned_rates(f, 2), 2)),
    "first order": lambda f: FirstOrder(InnerLoop(SGD(max_norm=0.5), learned_rates(f, 2), 2)),
    "reptile": lambda f: Reptile(InnerLoop(Adam(betas=(0.0, 0.999)), fixed_rates(f, 2, 0.1), 2)),
    "implicit": lambda f: Implicit(InnerLoop(SGD(), fixed_rates(f, 2), 2, proximal=5.0), iterations=3),
    "joint": lambda f: Joint(InnerLoop(SGD(), fixed_rates(f, 2), 2)),
}


@pytest.mark.parametrize(
    ("strategy", "family"),
    [
        *((strategy, conv_family) for strategy in STRATEGIES),
        ("exact", llama_family),
        ("unroll", lora_family),
        ("exact", lora_family),
        ("first order", lora_family),
        ("reptile", lora_family),
    ],
)
def test_every_strategy(strategy: str, family: Callable[[], Family]) -> None:
    built = family()
    tasks = [built.draw(seed, 2) for seed in range(3)]
    run = STRATEGIES[strategy](built)
    wanted = in_bundles(run, FunctionalLearner(built.module, built.objective), tasks)
    assert_same(in_bundles(run, VmapLearner(built.module, built.objective, 2), tasks), wanted)


def test_moments_carried_into_a_bundle() -> None:
    built = conv_family()
    tasks = [built.draw(seed, 2) for seed in range(3)]
    results = []
    for learner in (
        FunctionalLearner(built.module, built.objective),
        VmapLearner(built.module, built.objective, 3),
    ):
        rule = Adam(moments="carry")
        strategy = Exact(InnerLoop(rule, fixed_rates(built, 2, 0.1), 2))
        rule.carry([state for result in in_bundles(strategy, learner, tasks) for state in result.states])
        results.append(in_bundles(strategy, learner, tasks))
    assert_same(results[1], results[0])


def test_micro_batches_in_a_bundle() -> None:
    built = lora_family()
    whole = [built.draw(seed, 2) for seed in range(2)]
    cut: list[Task] = [
        FixedTask(
            task.name,
            [in_micro_batches(batch, 1, 3) for batch in task.support_batches],
            in_micro_batches(task.query_batch, 2, 2),
        )
        for task in whole
    ]
    strategy = Exact(InnerLoop(SGD(), learned_rates(built, 2), 2))
    learner = VmapLearner(built.module, built.objective, 2)
    got = strategy(learner, learner.bundle(cut))
    assert_same([got], in_bundles(strategy, FunctionalLearner(built.module, built.objective), whole))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer norm": (lambda: nn.LayerNorm(12), (12,)),
    "RMS norm": (lambda: nn.RMSNorm(12), (12,)),
    "batch norm": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 2, 2)),
    "batch norm in evaluation": (lambda: nn.BatchNorm2d(3).eval(), (3, 2, 2)),
    "group norm": (lambda: nn.GroupNorm(3, 12), (12,)),
    "convolution": (lambda: nn.Conv2d(3, 3, 3, padding=1), (3, 2, 2)),
    "max pooling": (lambda: nn.Sequential(nn.MaxPool2d(2, 1, padding=1), nn.Conv2d(3, 3, 2)), (3, 2, 2)),
    "GELU": (nn.GELU, (12,)),
    "GRU": (lambda: FirstOutput(nn.GRU(4, 4, batch_first=True)), (3, 4)),
    "attention": (lambda: Attention(4), (3, 4)),
}


class FirstOutput(nn.Module):
    """Leaves out what a recurrent layer returns beside its outputs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)[0]
        return outputs


class Attention(nn.Module):
    """Scaled dot-product attention by the one back end of PyTorch that has second derivatives."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(self.project(inputs), inputs, inputs)


@pytest.mark.parametrize("layer", LAYERS)
def test_hessian_products_of_common_layers(layer: str) -> None:
    """Every way to a Hessian-vector product agrees on every layer, bundled or not."""
    make, shape = LAYERS[layer]
    module = nn.Sequential(
        nn.Linear(6, 12), nn.Tanh(), nn.Unflatten(1, shape), make(), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3)
    ).double()
    batch = (torch.randn(5, 6, dtype=torch.float64), torch.randint(0, 3, (5,)))
    point = {n: p.detach() + 0.3 * torch.randn_like(p) for n, p in module.named_parameters()}
    direction = {n: torch.randn_like(p) for n, p in point.items()}
    in_place = InPlaceLearner(module, image_loss, hessian_product="central")
    with in_place.excursion():
        wanted = in_place.hvp(point, batch, direction)
    methods: tuple[HessianProduct, ...] = ("reverse", "forward")
    for method in methods:
        single = FunctionalLearner(module, image_loss, hessian_product=method)
        assert distance(single.hvp(point, batch, direction), wanted) < 1e-6
        bundled = VmapLearner(module, image_loss, 2, hessian_product=method)
        bundle = [vector.zeros_like(point), point]
        got = bundled.hvp(
            stack_batches(bundle), stack_batches([batch, batch]), stack_batches([direction, direction])
        )
        assert distance({name: tensor[1] for name, tensor in got.items()}, wanted) < 1e-6
