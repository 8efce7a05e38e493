"""Gradient checkpointing changes no number, or is refused: it never recomputes with the wrong parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.families import Family, conv_family, distance, fixed_rates, llama_family, lora_family
from innerloop.core.errors import InputError
from innerloop.core.inner import SGD
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.learner.vmapped import stack_batches
from innerloop.core.metagrad import Exact, FirstOrder, Strategy

pytestmark = pytest.mark.usefixtures("float64_llama")


def use_checkpointing(module: nn.Module, reentrant: bool = False) -> None:
    """As a fine-tuning script would; Hugging Face checkpoints in training mode only (there is no dropout)."""
    module.train()
    module.gradient_checkpointing_enable({"use_reentrant": reentrant})


@pytest.mark.parametrize("family", [llama_family, lora_family])
@pytest.mark.parametrize("strategy", [FirstOrder, Exact])
@pytest.mark.parametrize(
    ("make", "hessian_product"),
    [
        (FunctionalLearner, "reverse"),
        (FunctionalLearner, "central"),
        (InPlaceLearner, "reverse"),
        (InPlaceLearner, "central"),
    ],
)
def test_checkpointing_changes_nothing(
    make: type[FunctionalLearner] | type[InPlaceLearner],
    hessian_product: HessianProduct,
    strategy: type[Strategy],
    family: Callable[[], Family],
) -> None:
    """At adapted points: activations recomputed with θ, as ``functional_call`` invites, would show here."""
    results = []
    for checkpointed in (False, True):
        built = family()
        if checkpointed:
            use_checkpointing(built.module)
        recomputed = CountsForwards(built.module)
        learner = make(built.module, built.objective, hessian_product=hessian_product)
        inner = InnerLoop(SGD(), fixed_rates(built, 2), 2)
        results.append((strategy(inner)(learner, built.draw(1, 2)), recomputed.calls))
    (plain, plain_calls), (checkpointed_result, checkpointed_calls) = results
    assert checkpointed_calls > plain_calls, "checkpointing was not in force"
    assert distance(checkpointed_result.gradient, plain.gradient) < 1e-12


class CountsForwards:
    """How often the first attention layer ran: checkpointing runs it again in the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.calls = 0
        layer = next(m for name, m in module.named_modules() if name.endswith("layers.0.self_attn"))
        layer.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("learner", ["vmapped", "functional forward"])
def test_checkpointing_is_refused_under_a_transform(learner: str, reentrant: bool) -> None:
    built = llama_family()
    use_checkpointing(built.module, reentrant)
    inner, task = InnerLoop(SGD(), fixed_rates(built, 1), 1), built.draw(1, 1)
    on: Learner = (
        VmapLearner(built.module, built.objective, 1)
        if learner == "vmapped"
        else FunctionalLearner(built.module, built.objective, hessian_product="forward")
    )
    with pytest.raises(InputError, match="checkpointing"):
        Exact(inner)(on, on.bundle([task]))


def test_reentrant_checkpointing_is_refused_by_the_functional_learner() -> None:
    built = llama_family()
    use_checkpointing(built.module, reentrant=True)
    learner = FunctionalLearner(built.module, built.objective)
    with pytest.raises(InputError, match="use_reentrant=False"):
        FirstOrder(InnerLoop(SGD(), fixed_rates(built, 1), 1))(learner, built.draw(1, 1))


class Checkpointed(nn.Module):
    """Checkpointing by PyTorch's own function, with no library's hooks around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = checkpoint(self.layer, inputs, use_reentrant=False)
        return outputs


def test_plain_checkpointing_is_right_or_refused() -> None:
    built = conv_family()
    assert isinstance(built.module, nn.Sequential)
    batch = built.draw(1, 1).query_batch
    point = {name: t + 0.1 * torch.randn_like(t) for name, t in built.theta().items()}
    direction = {name: torch.randn_like(t) for name, t in point.items()}
    wanted = InPlaceLearner(built.module, built.objective).hvp(point, batch, direction)
    module = nn.Sequential(*(Checkpointed(layer) for layer in built.module))

    def renamed(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace(".", ".layer."): tensor for name, tensor in vectors.items()}

    products: tuple[HessianProduct, ...] = ("reverse", "central")
    for product in products:
        learner = FunctionalLearner(module, built.objective, hessian_product=product)
        got = learner.hvp(renamed(point), batch, renamed(direction))
        assert distance(got, renamed(wanted)) < (1e-12 if product == "reverse" else 1e-6)
    with pytest.raises(InputError, match="checkpointing"):
        FunctionalLearner(module, built.objective, hessian_product="forward").hvp(
            renamed(point), batch, renamed(direction)
        )
    with pytest.raises(InputError, match="checkpointing"):
        VmapLearner(module, built.objective, 1).gradient(
            stack_batches([renamed(point)]), stack_batches([batch])
        )
