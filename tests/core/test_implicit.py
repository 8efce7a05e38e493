"""Implicit MAML against closed forms, against the exact gradient it is the limit of, and on hard systems."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from core.families import Family, distance, flat, quadratic_family
from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, MetaGradient
from innerloop.core.task import FixedTask

LAMBDA = 0.8
IDENTITY = torch.eye(6, dtype=torch.float64)
TO_THE_PROXIMAL_POINT, RATE = 36, 0.5
"""Inner steps that take a quadratic of the family, eigenvalues 0.2 to 2, to its proximal point."""


def one_batch(built: Family, seed: int) -> FixedTask:
    """A task whose support loss is one fixed quadratic, so that the inner loop converges."""
    task = built.draw(seed, 1)
    return FixedTask(task.name, task.support_batches[:1], task.query_batch)


def proximal_loop(built: Family, steps: int = TO_THE_PROXIMAL_POINT) -> InnerLoop:
    return InnerLoop(SGD(), LearningRates(RATE, built.names, steps), steps, LAMBDA)


def closed_form(built: Family, task: FixedTask, damping: float = 0.0) -> tuple[Tensor, Tensor]:
    """φ* and the solution g of ((1 + δ) I + A/λ) g = ∇Q(φ*)."""
    (matrix, target), (query_matrix, query_target) = task.support_batches[0], task.query_batch
    theta = flat(built.theta())
    adapted = torch.linalg.solve(matrix + LAMBDA * IDENTITY, target + LAMBDA * theta)
    at_query = query_matrix @ adapted - query_target
    return adapted, torch.linalg.solve((1 + damping) * IDENTITY + matrix / LAMBDA, at_query)


@pytest.mark.parametrize(
    ("make", "hessian_product", "tolerance", "damping"),
    [
        (FunctionalLearner, "reverse", 1e-9, 0.0),
        (FunctionalLearner, "reverse", 1e-9, 0.5),
        (FunctionalLearner, "forward", 1e-9, 0.0),
        (InPlaceLearner, "reverse", 1e-9, 0.0),
        (InPlaceLearner, "central", 1e-6, 0.5),
    ],
)
def test_closed_form(
    make: type[FunctionalLearner] | type[InPlaceLearner],
    hessian_product: HessianProduct,
    tolerance: float,
    damping: float,
) -> None:
    built = quadratic_family()
    task = one_batch(built, 1)
    learner = make(built.module, built.objective, hessian_product=hessian_product)
    result = Implicit(proximal_loop(built), iterations=6, damping=damping)(learner, task)
    _, wanted = closed_form(built, task, damping)
    torch.testing.assert_close(flat(result.gradient), wanted, rtol=tolerance, atol=tolerance)
    assert float(result.extras["stationarity"]) < 1e-9
    assert float(result.extras["cg_residual"]) < max(tolerance, 1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_the_reported_residual_is_that_of_the_solution(iterations: int) -> None:
    built = quadratic_family()
    task = one_batch(built, 2)
    learner = FunctionalLearner(built.module, built.objective)
    result = Implicit(proximal_loop(built), iterations)(learner, task)
    adapted, _ = closed_form(built, task)
    (matrix, _), (query_matrix, query_target) = task.support_batches[0], task.query_batch
    wanted = query_matrix @ adapted - query_target
    left = wanted - (IDENTITY + matrix / LAMBDA) @ flat(result.gradient)
    assert float(result.extras["cg_residual"]) == pytest.approx(float(left.norm() / wanted.norm()), rel=1e-6)
    assert float(result.extras["cg_residual"]) > 1e-6, "solved too early to tell"


def test_the_stationarity_is_that_of_the_point_reached() -> None:
    """Three steps are not enough to reach φ*, and three different batches are averaged."""
    built = quadratic_family()
    task = built.draw(3, 3)
    result = Implicit(proximal_loop(built, 3), iterations=1)(
        FunctionalLearner(built.module, built.objective), task
    )
    theta = point = flat(built.theta())
    for matrix, target in task.support_batches:
        point = point - RATE * (matrix @ point - target + LAMBDA * (point - theta))
    gradient = torch.stack([matrix @ point - target for matrix, target in task.support_batches]).mean(0)
    left = gradient + LAMBDA * (point - theta)
    torch.testing.assert_close(result.extras["stationarity"], left.norm().reshape(1), rtol=1e-10, atol=0)


def test_several_support_batches_make_one_mean_hessian() -> None:
    built = quadratic_family()
    task = built.draw(4, 3)
    inner = proximal_loop(built, 3)
    learner = FunctionalLearner(built.module, built.objective)
    result = Implicit(inner, iterations=6)(learner, task)
    adapted = flat(inner.run(learner, task, built.theta()).params)
    matrix = torch.stack([batch[0] for batch in task.support_batches]).mean(0)
    query_matrix, query_target = task.query_batch
    wanted = torch.linalg.solve(IDENTITY + matrix / LAMBDA, query_matrix @ adapted - query_target)
    torch.testing.assert_close(flat(result.gradient), wanted, rtol=1e-9, atol=1e-12)


def test_without_iterations_it_is_first_order_at_the_proximal_point() -> None:
    built = quadratic_family()
    task, inner = one_batch(built, 5), proximal_loop(built)
    learner = FunctionalLearner(built.module, built.objective)
    got, wanted = Implicit(inner, iterations=0)(learner, task), FirstOrder(inner)(learner, task)
    assert distance(got.gradient, wanted.gradient) == 0
    assert "cg_residual" not in got.extras
    without_pull = FirstOrder(InnerLoop(SGD(), inner.rates, inner.steps))(learner, task)
    assert distance(without_pull.gradient, wanted.gradient) > 0.1


def classification_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return cross_entropy(module(inputs), labels)


def test_it_is_the_limit_of_exact_maml() -> None:
    """On a problem that is not quadratic: many proximal steps unrolled give the implicit gradient."""
    module = nn.Linear(4, 3).double()
    batches = [(torch.randn(12, 4, dtype=torch.float64), torch.randint(0, 3, (12,))) for _ in range(2)]
    task = FixedTask("softmax regression", batches[:1], batches[1])
    inner = InnerLoop(SGD(), LearningRates(0.8, ["weight", "bias"], 45), 45, proximal=0.5)
    learner = FunctionalLearner(module, classification_loss)
    exact, implicit = Exact(inner)(learner, task), Implicit(inner, iterations=15)(learner, task)
    assert distance(implicit.gradient, exact.gradient) < 1e-9
    assert distance(FirstOrder(inner)(learner, task).gradient, exact.gradient) > 0.05


def indefinite(eigenvalues: list[float]) -> tuple[Tensor, Tensor]:
    return torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)), torch.ones(6, dtype=torch.float64)


def run_once(learner: Learner, built: Family, tasks: list[FixedTask], iterations: int) -> MetaGradient:
    """One tiny inner step, so that a loss without a minimum has no time to run away."""
    inner = InnerLoop(SGD(), LearningRates(1e-3, built.names, 1), 1, LAMBDA)
    return Implicit(inner, iterations)(learner, learner.bundle(tasks))


def test_negative_curvature_stops_with_what_is_solved_so_far() -> None:
    built = quadratic_family()
    task = FixedTask("saddle", [indefinite([-4.0] * 6)], indefinite([1.0] * 6))
    learner = FunctionalLearner(built.module, built.objective)
    result = run_once(learner, built, [task], iterations=10)
    first_order = run_once(learner, built, [task], iterations=0)
    assert distance(result.gradient, first_order.gradient) == 0
    residual = abs(1 - (1 - 4.0 / LAMBDA))
    assert float(result.extras["cg_residual"]) == pytest.approx(residual, rel=1e-9)
    products_before = learner.ledger.hessian_products
    run_once(learner, built, [task], iterations=10)
    assert learner.ledger.hessian_products == products_before + 2  # the residual, and the direction refused


def test_negative_curvature_found_late() -> None:
    """One bad direction among five good ones: CG moves, then stops; the answer stays finite."""
    built = quadratic_family()
    task = FixedTask("saddle", [indefinite([2.0, 1.0, 0.5, 0.3, 0.2, -4.0])], indefinite([1.0] * 6))
    result = run_once(FunctionalLearner(built.module, built.objective), built, [task], iterations=10)
    assert vector.all_finite(result.gradient)
    assert torch.isfinite(result.extras["cg_residual"]).all()


def test_a_solved_system_is_left_alone() -> None:
    """Far more iterations than unknowns neither divide by zero nor go on working."""
    built = quadratic_family()
    task = FixedTask("sphere", [indefinite([0.5] * 6)], indefinite([1.0] * 6))
    learner = FunctionalLearner(built.module, built.objective)
    result = run_once(learner, built, [task], iterations=50)
    wanted = run_once(learner, built, [task], iterations=0).gradient
    assert distance(result.gradient, vector.scaled(wanted, 1 / (1 + 0.5 / LAMBDA))) < 1e-12
    assert learner.ledger.hessian_products < 6


def test_a_query_gradient_of_zero() -> None:
    built = quadratic_family()
    nothing = (torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64))
    task = FixedTask("no slope", [indefinite([1.0] * 6)], nothing)
    result = run_once(FunctionalLearner(built.module, built.objective), built, [task], iterations=3)
    assert float(vector.norm(result.gradient)) == 0
    assert float(result.extras["cg_residual"]) == 0


def test_every_task_of_a_bundle_solves_its_own_system() -> None:
    """Three systems that need six iterations, one, and none that can be had, side by side."""
    built = quadratic_family()
    tasks = [
        one_batch(built, 6),
        FixedTask("sphere", [indefinite([0.5] * 6)], built.draw(7, 1).query_batch),
        FixedTask("saddle", [indefinite([-4.0] * 6)], built.draw(8, 1).query_batch),
    ]
    single = FunctionalLearner(built.module, built.objective)
    alone = [run_once(single, built, [task], iterations=6) for task in tasks]
    together = run_once(VmapLearner(built.module, built.objective, 3), built, tasks, iterations=6)
    total = vector.add(vector.add(alone[0].gradient, alone[1].gradient), alone[2].gradient)
    assert distance(together.gradient, total) < 1e-9
    residuals = together.extras["cg_residual"]
    assert residuals[0] < 1e-9
    assert residuals[1] < 1e-9
    assert residuals[2] > 1
    torch.testing.assert_close(
        together.extras["stationarity"],
        torch.cat([result.extras["stationarity"] for result in alone]),
        rtol=1e-10,
        atol=0,
    )


def test_a_pull_is_required() -> None:
    inner = InnerLoop(SGD(), LearningRates(0.1, ["head", "tail"], 1), 1)
    with pytest.raises(InputError, match=r"implicit\.lambda"):
        Implicit(inner, iterations=3)
