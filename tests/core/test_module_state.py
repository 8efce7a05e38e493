"""What a module holds or draws beside its parameters: running statistics, dropout masks, no-grad modes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.families import (
    Family,
    conv_family,
    distance,
    drawn,
    fixed_rates,
    image_loss,
    images,
    learned_rates,
    quadratic_family,
)
from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import SGD
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Joint, Reptile, Strategy, Unroll

SINGLE: list[type[FunctionalLearner] | type[InPlaceLearner]] = [FunctionalLearner, InPlaceLearner]


def tracking_family() -> Family:
    """Batch norm that tracks running statistics, as most published nets have it."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    return Family(module.double(), image_loss, drawn(images), inner_rate=0.2)


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


# Running statistics


@pytest.mark.parametrize("strategy", [Exact, FirstOrder, Reptile, Joint])
@pytest.mark.parametrize("make", SINGLE)
def test_running_statistics_do_not_leak_between_tasks(
    make: type[FunctionalLearner] | type[InPlaceLearner], strategy: type[Strategy]
) -> None:
    built = tracking_family()
    learner = make(built.module, built.objective)
    run = strategy(InnerLoop(SGD(), fixed_rates(built, 2), 2))
    before = buffers(built.module)
    alone = run(learner, built.draw(2, 2))
    run(learner, built.draw(1, 2))
    after = run(learner, built.draw(2, 2))
    assert distance(after.gradient, alone.gradient) == 0
    for name, buffer in built.module.named_buffers():
        assert torch.equal(buffer, before[name])


def test_running_statistics_do_move_while_a_task_lasts() -> None:
    """Else the test above would prove nothing; and evaluation inside an excursion may use them."""
    built = tracking_family()
    learner = InPlaceLearner(built.module, built.objective)
    before = buffers(built.module)
    with learner.excursion() as theta:
        learner.gradient(theta, built.draw(1, 1).query_batch)
        assert float(built.module.get_buffer("1.num_batches_tracked")) == 1
        assert not torch.equal(built.module.get_buffer("1.running_mean"), before["1.running_mean"])
    assert float(built.module.get_buffer("1.num_batches_tracked")) == 0


def test_running_statistics_do_not_touch_the_gradient_in_training() -> None:
    """In training mode batch norm normalises by the batch: tracking or not, the numbers are the same."""
    tracking, built = tracking_family(), tracking_family()
    built.module[1].track_running_stats = False  # type: ignore[index]
    inner, task = InnerLoop(SGD(), fixed_rates(built, 2), 2), built.draw(1, 2)
    got = Exact(inner)(FunctionalLearner(tracking.module, tracking.objective), task)
    wanted = Exact(inner)(FunctionalLearner(built.module, built.objective), task)
    assert distance(got.gradient, wanted.gradient) < 1e-12


@pytest.mark.parametrize(
    "make",
    [
        lambda f: VmapLearner(f.module, f.objective, 2),
        lambda f: FunctionalLearner(f.module, f.objective, hessian_product="forward"),
    ],
    ids=["vmapped", "functional forward"],
)
def test_running_statistics_are_refused_under_a_transform(make: Callable[[Family], Learner]) -> None:
    built = tracking_family()
    learner = make(built)
    tasks = [built.draw(seed, 1) for seed in range(learner.tasks_at_once)]
    before = buffers(built.module)
    with pytest.raises(InputError, match=r"(running statistics|buffer that changes)"):
        Exact(InnerLoop(SGD(), fixed_rates(built, 1), 1))(learner, learner.bundle(tasks))
    for name, buffer in built.module.named_buffers():
        assert torch.equal(buffer, before[name])


# Dropout


def dropout_family() -> Family:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    return Family(module.double(), image_loss, drawn(images), inner_rate=0.2)


def test_dropout_that_is_off_changes_nothing() -> None:
    built = dropout_family()
    built.module.eval()
    inner, task = InnerLoop(SGD(), learned_rates(built, 3), 3), built.draw(1, 3)
    wanted = Unroll(inner)(FunctionalLearner(built.module, built.objective), task)
    for learner in (
        FunctionalLearner(built.module, built.objective),
        InPlaceLearner(built.module, built.objective),
        VmapLearner(built.module, built.objective, 1),
    ):
        got = Exact(inner)(learner, learner.bundle([task]))
        assert distance(got.gradient, wanted.gradient) < 1e-9


@pytest.mark.parametrize("make", SINGLE)
def test_dropout_in_training_draws_with_pytorchs_generator(
    make: type[FunctionalLearner] | type[InPlaceLearner],
) -> None:
    """So its state, which checkpoints hold, decides the masks; a different one gives other masks."""
    built = dropout_family()
    run = FirstOrder(InnerLoop(SGD(), fixed_rates(built, 2), 2))
    learner, results = make(built.module, built.objective), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(run(learner, built.draw(1, 2)).gradient)
    assert distance(results[1], results[0]) == 0
    assert distance(results[2], results[0]) > 0.01


@pytest.mark.parametrize("make", SINGLE)
def test_a_central_difference_holds_the_masks_still(
    make: type[FunctionalLearner] | type[InPlaceLearner],
) -> None:
    """Two masks a width of 1e-5 apart would differ by noise divided by 1e-5."""
    built = dropout_family()
    batch, theta = built.draw(1, 1).query_batch, built.theta()
    direction = {name: torch.randn_like(t) for name, t in theta.items()}
    methods: tuple[HessianProduct, ...] = ("reverse", "central")
    products, states = [], []
    for method in methods:
        learner = make(built.module, built.objective, hessian_product=method)
        torch.manual_seed(7)
        with learner.excursion():
            products.append(learner.hvp(theta, batch, direction))
        states.append(torch.get_rng_state())
    assert distance(products[1], products[0]) < 1e-6
    assert torch.equal(states[0], states[1]), "one product draws one mask, however it is taken"


def test_exact_with_dropout_on_draws_new_masks_for_its_hessians() -> None:
    """What it returns then is an estimate, not the derivative of the path it took, which unrolling gives."""
    built = dropout_family()
    inner, task = InnerLoop(SGD(), fixed_rates(built, 1, 5.0), 1), built.draw(1, 1)
    gradients = []
    for strategy in (Exact, Unroll):
        torch.manual_seed(3)
        gradients.append(strategy(inner)(FunctionalLearner(built.module, built.objective), task).gradient)
    assert distance(gradients[0], gradients[1]) > 0.01


def test_dropout_is_refused_where_tasks_are_bundled() -> None:
    built = dropout_family()
    learner = VmapLearner(built.module, built.objective, 2)
    with pytest.raises(InputError, match="dropout"):
        FirstOrder(InnerLoop(SGD(), fixed_rates(built, 1), 1))(
            learner, learner.bundle([built.draw(1, 1), built.draw(2, 1)])
        )


# Modes of the caller


@pytest.mark.parametrize(
    ("strategy", "learner"),
    [
        (strategy, learner)
        for strategy in (Exact, FirstOrder, Reptile, Joint)
        for learner in ("functional", "in place", "vmapped")
    ]
    + [(Unroll, "functional")],
)
def test_gradients_are_taken_under_no_grad(strategy: type[Strategy], learner: str) -> None:
    """Evaluation loops run under ``torch.no_grad``; adapting there must not silently do nothing."""
    built = conv_family()
    on: Learner = {
        "functional": FunctionalLearner(built.module, built.objective),
        "in place": InPlaceLearner(built.module, built.objective),
        "vmapped": VmapLearner(built.module, built.objective, 1),
    }[learner]
    run, task = strategy(InnerLoop(SGD(), fixed_rates(built, 2), 2)), built.draw(1, 2)
    wanted = run(on, on.bundle([task]))
    with torch.no_grad():
        got = run(on, on.bundle([task]))
    assert float(vector.norm(wanted.gradient)) > 0.1
    assert distance(got.gradient, wanted.gradient) < 1e-12
    torch.testing.assert_close(got.query_loss, wanted.query_loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", SINGLE)
def test_inference_mode_is_refused(make: type[FunctionalLearner] | type[InPlaceLearner]) -> None:
    built = quadratic_family()
    run, task = FirstOrder(InnerLoop(SGD(), fixed_rates(built, 1), 1)), built.draw(1, 1)
    theta = built.theta()
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        run(make(built.module, built.objective), task)
    assert distance(built.theta(), theta) == 0
