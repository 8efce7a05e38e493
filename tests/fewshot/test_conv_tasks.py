"""The hand-written passes of Conv4 against PyTorch's derivatives of the plain module, in float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Strategy, Unroll
from innerloop.core.params import Params
from innerloop.core.task import FixedTask
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.conv_tasks import ConvTasksLearner, InParts
from innerloop.fewshot.conv_tasks import learner as module_of_learner
from innerloop.fewshot.conv_tasks.recent import Recent
from innerloop.fewshot.learners.classifier import Classifier
from innerloop.fewshot.learners.gradient import cross_entropy

TASKS, WAYS, WIDTH = 3, 4, 6


@dataclass(frozen=True)
class Shape:
    """Of images and net."""

    strided: bool
    channels: int
    size: int
    images: int


SHAPES = [
    Shape(True, 1, 28, 5),
    Shape(True, 3, 17, 1),
    Shape(True, 2, 9, 3),
    Shape(False, 3, 35, 2),
    Shape(False, 1, 16, 4),
]


def classifier(shape: Shape) -> Classifier:
    """Its own numbers in every tensor, biases and batch norm's among them."""
    torch.manual_seed(0)
    built = Classifier(Conv4(shape.channels, shape.size, WIDTH, shape.strided, running=False), WAYS).double()
    with torch.no_grad():
        for p in built.parameters():
            p += 0.1 * torch.randn_like(p)
    return built


def images(piece: tuple[Tensor, Tensor]) -> int:
    """In a bundle's batch."""
    return piece[1].numel()


def learners(shape: Shape) -> tuple[ConvTasksLearner, VmapLearner]:
    """The one under test and the reference, on one module."""
    built = classifier(shape)
    assert isinstance(built.body, Conv4)
    return (
        ConvTasksLearner(built, cross_entropy, built.body, TASKS, images),
        VmapLearner(built, cross_entropy, TASKS, batch_size=images),
    )


def batch(shape: Shape) -> tuple[Tensor, Tensor]:
    """One a task."""
    images = torch.randn(TASKS, shape.images, shape.channels, shape.size, shape.size, dtype=torch.float64)
    return images, torch.randint(WAYS, (TASKS, shape.images))


def points(learner: VmapLearner) -> Params:
    """Another one for every task."""
    return {
        name: p.detach() + 0.1 * torch.randn(TASKS, *p.shape, dtype=torch.float64)
        for name, p in learner.theta.items()
    }


def tasks(shape: Shape, batches: int) -> list[FixedTask]:
    """With so many support batches."""
    stacks = [batch(shape) for _ in range(batches + 1)]
    return [
        FixedTask(f"task {i}", [(x[i], y[i]) for x, y in stacks[:-1]], (stacks[-1][0][i], stacks[-1][1][i]))
        for i in range(TASKS)
    ]


def assert_same(found: Params, wanted: Params, tolerance: float = 1e-10) -> None:
    """Of each tensor's own size; a convolution's bias before batch norm has gradient 0 up to rounding."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=0, atol=tolerance * max(1.0, float(tensor.abs().max())), msg=name
        )


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_gradients_and_products_are_those_of_the_module(
    shape: Shape, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slices > 1:
        monkeypatch.setattr(module_of_learner, "SLICE", 1)
    mine, reference = learners(shape)
    at, piece = points(reference), batch(shape)
    torch.testing.assert_close(mine.loss(at, piece), reference.loss(at, piece))
    loss, gradient = mine.gradient(at, piece)
    wanted_loss, wanted = reference.gradient(at, piece)
    torch.testing.assert_close(loss, wanted_loss)
    assert_same(gradient, wanted)
    for _ in range(2):  # the second time from the pass that was kept
        direction = {name: torch.randn_like(tensor) for name, tensor in at.items()}
        assert_same(mine.hvp(at, piece, direction), reference.hvp(at, piece, direction))


def test_a_channel_scaled_by_zero_has_its_derivatives() -> None:
    mine, reference = learners(SHAPES[0])
    at, piece = points(reference), batch(SHAPES[0])
    for block in range(4):
        at[f"body.blocks.{block}.1.weight"][:, 2] = 0
        at[f"body.blocks.{block}.1.bias"][:, 2] = 0.3
    direction = {name: torch.randn_like(tensor) for name, tensor in at.items()}
    assert_same(mine.gradient(at, piece)[1], reference.gradient(at, piece)[1])
    assert_same(mine.hvp(at, piece, direction), reference.hvp(at, piece, direction))


def test_images_of_one_colour_have_finite_derivatives() -> None:
    mine, reference = learners(SHAPES[3])
    at, (images, labels) = points(reference), batch(SHAPES[3])
    piece = (torch.ones_like(images), labels)
    direction = {name: torch.randn_like(tensor) for name, tensor in at.items()}
    assert_same(mine.gradient(at, piece)[1], reference.gradient(at, piece)[1])
    assert_same(mine.hvp(at, piece, direction), reference.hvp(at, piece, direction), 1e-8)


@pytest.mark.parametrize("strided", [True, False])
def test_the_exact_meta_gradient_is_that_of_unrolling_the_module(strided: bool) -> None:
    shape = Shape(strided, 1, 16, 5)
    mine, _ = learners(shape)
    rates = LearningRates(0.3, list(mine.theta), 3, learned=True)
    loop = InnerLoop(SGD(), rates, 3)
    many = tasks(shape, 2)
    found = Exact(loop)(mine, mine.bundle(many))
    plain = FunctionalLearner(mine.module, cross_entropy)
    unrolled = [Unroll(loop)(plain, task) for task in many]
    assert_same(found.gradient, summed([each.gradient for each in unrolled]), 1e-8)
    assert_same(found.rate_gradient, summed([each.rate_gradient for each in unrolled]), 1e-5)
    torch.testing.assert_close(found.query_loss, torch.cat([each.query_loss for each in unrolled]))
    torch.testing.assert_close(
        found.query_loss_before, torch.cat([each.query_loss_before for each in unrolled])
    )


@pytest.mark.parametrize("make", [FirstOrder, lambda loop: Implicit(loop, 3)], ids=["fomaml", "implicit"])
def test_other_strategies_give_what_they_give_with_the_module(make: type[Strategy]) -> None:
    mine, reference = learners(SHAPES[0])
    strategy = make(InnerLoop(SGD(), LearningRates(0.3, list(mine.theta), 2), 2, proximal=2.0))
    many = tasks(SHAPES[0], 1)
    found = strategy(mine, mine.bundle(many))
    wanted = strategy(reference, reference.bundle(many))
    assert_same(found.gradient, wanted.gradient, 1e-8)
    assert mine.ledger == reference.ledger


def test_float32_meta_gradient_is_close_to_unrolling() -> None:
    shape = Shape(True, 1, 28, 5)
    mine, _ = learners(shape)
    mine.module.float()
    loop = InnerLoop(SGD(), LearningRates(0.1, list(mine.theta), 2), 2)
    many = [
        FixedTask(
            task.name,
            [(x.float(), y) for x, y in task.support_batches],
            (task.query_batch[0].float(), task.query_batch[1]),
        )
        for task in tasks(shape, 1)
    ]
    found = Exact(loop)(mine, mine.bundle(many)).gradient
    plain = FunctionalLearner(mine.module, cross_entropy)
    wanted = summed([Unroll(loop)(plain, task).gradient for task in many])
    assert_same(found, wanted, 2e-4)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize(
    "make", [Exact, FirstOrder, lambda loop: Implicit(loop, 3)], ids=["maml", "fomaml", "implicit"]
)
def test_a_bundle_in_parts_beside_each_other_has_the_meta_gradient_of_the_whole(
    make: type[Strategy], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_learner, "PART", size)
    monkeypatch.setattr(module_of_learner, "SLICE", 1)  # parts are cut once more, and kept passes with them
    mine, reference = learners(SHAPES[0])
    rates = LearningRates(0.3, list(mine.theta), 2, learned=make in (Exact, FirstOrder))
    strategy = make(InnerLoop(SGD(), rates, 2, proximal=2.0))
    many = tasks(SHAPES[0], 2)
    wanted = strategy(reference, reference.bundle(many))
    in_parts = InParts(strategy)
    for total in (None, {name: torch.zeros_like(p) for name, p in mine.theta.items()}):
        found = in_parts(mine, mine.bundle(many), total)
        assert total is None or found.gradient is total
        assert_same(found.gradient, wanted.gradient, 1e-8)
        assert_same(found.rate_gradient, wanted.rate_gradient, 1e-5)
        assert_same(found.extras, wanted.extras, 1e-8)
        for name in ("support_loss", "query_loss_before", "query_loss"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
        assert len(found.states) == TASKS
    spent = {name: count // 2 for name, count in mine.ledger.state_dict().items()}
    assert spent == reference.ledger.state_dict()


@pytest.mark.usefixtures("two_threads")
def test_losses_that_nothing_needs_are_left_out_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_learner, "PART", 1)
    mine, _ = learners(SHAPES[0])
    strategy = InParts(Exact(InnerLoop(SGD(), LearningRates(0.3, list(mine.theta), 2), 2)))
    many = tasks(SHAPES[0], 1)
    watched = strategy(mine, mine.bundle(many))
    mine.monitors = False
    found = strategy(mine, mine.bundle(many))
    assert found.support_loss is found.query_loss_before is None
    assert watched.support_loss is not None
    assert torch.equal(found.query_loss, watched.query_loss)
    assert all(torch.equal(found.gradient[name], tensor) for name, tensor in watched.gradient.items())


def test_recent_results_are_found_by_identity_as_far_as_there_is_room() -> None:
    made: list[str] = []

    def make(name: str) -> Callable[[], str]:
        def called() -> str:
            made.append(name)
            return name

        return called

    recent: Recent[str] = Recent(3)
    a, b, c = [1], [1], [1]
    assert recent.get((a,), make("a"), 1) == "a"
    assert recent.get((b,), make("b"), 2) == "b"  # equal, and not the same
    assert recent.get((a,), make("again"), 1) == "a"
    assert recent.get((c,), make("c"), 2) == "c"  # a and b have to go
    assert recent.get((b,), make("b"), 1) == "b"
    assert recent.get((a,), make("large"), 4) == "large"  # not kept, and has emptied the room
    assert recent.get((a,), make("a"), 1) == "a"
    assert made == ["a", "b", "c", "b", "large", "a"]


def test_nothing_is_kept_after_an_excursion_and_the_next_starts_from_the_new_parameters() -> None:
    mine, reference = learners(SHAPES[0])
    loop = InnerLoop(SGD(), LearningRates(0.3, list(mine.theta), 1), 1)
    many = tasks(SHAPES[0], 1)
    for _ in range(2):
        found = Exact(loop)(mine, mine.bundle(many))
        assert_same(found.gradient, Exact(loop)(reference, reference.bundle(many)).gradient)
        with torch.no_grad():
            for name, p in mine.theta.items():
                p -= found.gradient[name]


def summed(parts: list[Params]) -> Params:
    """Tensor by tensor."""
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
