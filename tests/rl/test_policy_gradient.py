"""Policy gradients and meta-gradients on a problem whose expected return is known."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner
from innerloop.core.metagrad import Exact, FirstOrder, Implicit
from innerloop.core.params import Params
from innerloop.rl.policy_gradient import Advantages, PolicyLoss, Surrogate, discounted
from innerloop.rl.rollout import Played, Trajectories
from rl import two_states

BOTH: tuple[Surrogate, ...] = ("dice", "likelihood_ratio")
RATE = 0.7
STANDARD_ERRORS = 4.0


def theta_of(module: nn.Module) -> Params:
    return {name: p.detach() for name, p in module.named_parameters()}


def exact_gradient(module: nn.Module, params: Params, create_graph: bool = False) -> Params:
    live = {name: p if create_graph else p.detach().requires_grad_() for name, p in params.items()}
    value = two_states.expected_return(module, live)
    gradients = torch.autograd.grad(value, list(live.values()), create_graph=create_graph)
    return dict(zip(live, gradients, strict=True))


def exact_hessian(module: nn.Module, params: Params) -> Tensor:
    def value(flat: Tensor) -> Tensor:
        return two_states.expected_return(module, {"preference": flat})

    return torch.autograd.functional.hessian(value, params["preference"])


def central_difference(function, point: Tensor, width: float = 1e-5) -> Tensor:
    columns = []
    for i in range(point.numel()):
        step = torch.zeros_like(point)
        step[i] = width
        columns.append((function(point + step) - function(point - step)) / (2 * width))
    return torch.stack(columns)


@dataclass(frozen=True)
class KnownTask:
    """Support and query are all courses, as the policy of the moment would play them."""

    module: nn.Module
    name: str = "two states"

    def support(self, step: int, params: Params) -> Trajectories:
        return two_states.every_course(self.module, params)

    def query(self, params: Params) -> Trajectories:
        return two_states.every_course(self.module, params)


@dataclass(frozen=True)
class DrawnQuery(KnownTask):
    """Support is all courses; the query is one drawn course."""

    seed: int = 0

    def query(self, params: Params) -> Trajectories:
        generator = torch.Generator().manual_seed(self.seed)
        return two_states.drawn_courses(self.module, params, 1, generator)


def inner_loop(module: nn.Module, steps: int, rate: float = RATE) -> InnerLoop:
    return InnerLoop(SGD(), LearningRates(rate, list(theta_of(module)), steps), steps)


def test_the_expected_return_is_one_over_all_courses() -> None:
    module = two_states.TwoStatePolicy()
    assert two_states.probabilities(module, theta_of(module)).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("surrogate", BOTH)
@pytest.mark.parametrize("baseline", [True, False])
def test_the_first_derivative_is_the_policy_gradient(surrogate: Surrogate, baseline: bool) -> None:
    module = two_states.TwoStatePolicy()
    theta = theta_of(module)
    learner = FunctionalLearner(module, PolicyLoss(surrogate, value=0.0))
    loss, gradient = learner.gradient(theta, two_states.every_course(module, theta, baseline))

    def value(flat: Tensor) -> Tensor:
        return two_states.expected_return(module, {"preference": flat})

    differences = central_difference(value, theta["preference"])
    assert torch.allclose(-gradient["preference"], differences, atol=1e-9)
    assert loss == pytest.approx(-float(two_states.expected_return(module, theta)), abs=1e-12)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_second_derivative_of_dice_is_that_of_the_expected_return(baseline: bool) -> None:
    module = two_states.TwoStatePolicy()
    theta = theta_of(module)
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    batch = two_states.every_course(module, theta, baseline)
    products = [
        learner.hvp(theta, batch, {"preference": row})["preference"]
        for row in torch.eye(2, dtype=torch.float64)
    ]

    def slope(flat: Tensor) -> Tensor:
        return exact_gradient(module, {"preference": flat})["preference"]

    differences = central_difference(slope, theta["preference"])
    assert torch.allclose(-torch.stack(products), differences, atol=1e-8)
    assert torch.allclose(-torch.stack(products), exact_hessian(module, theta), atol=1e-12)


def test_the_likelihood_ratio_keeps_the_products_of_each_step_with_itself_alone() -> None:
    module = two_states.TwoStatePolicy()
    theta = theta_of(module)
    learner = FunctionalLearner(module, PolicyLoss("likelihood_ratio", value=0.0))
    batch = two_states.every_course(module, theta)
    hessian = torch.stack(
        [
            learner.hvp(theta, batch, {"preference": row})["preference"]
            for row in torch.eye(2, dtype=torch.float64)
        ]
    )
    # Σ_t E[(∇² log π_t + ∇ log π_t ∇ log π_tᵀ) A_t], term by term.
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for course in range(len(two_states.STATES)):
        for step in range(two_states.STEPS):

            def one(flat: Tensor, course: int = course, step: int = step) -> Tensor:
                return two_states.log_probability_at(module, flat, course, step)

            flat = theta["preference"].clone().requires_grad_()
            score = torch.autograd.grad(one(flat), flat)[0]
            curvature = torch.autograd.functional.hessian(one, theta["preference"])
            expected += batch.advantages[course, step] * (curvature + torch.outer(score, score))
    expected /= len(two_states.STATES) * two_states.STEPS
    assert torch.allclose(-hessian, expected, atol=1e-10)
    assert not torch.allclose(-hessian, exact_hessian(module, theta), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_meta_gradient_is_the_derivative_of_the_adapted_return(steps: int) -> None:
    module = two_states.TwoStatePolicy()
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    found = Exact(inner_loop(module, steps))(learner, KnownTask(module)).gradient["preference"]

    def adapted_return(flat: Tensor) -> Tensor:
        point = {"preference": flat}
        for _ in range(steps):
            point = {
                name: point[name] + RATE * slope
                for name, slope in exact_gradient(module, point, create_graph=True).items()
            }
        return two_states.expected_return(module, point)

    start = theta_of(module)["preference"].clone().requires_grad_()
    unrolled = torch.autograd.grad(adapted_return(start), start)[0]
    # Differences need no graph, but the inner gradients do.
    differences = central_difference(
        lambda flat: adapted_return(flat.requires_grad_()).detach(), start.detach()
    )
    assert torch.allclose(unrolled, differences, atol=1e-8)
    assert torch.allclose(-found, unrolled, atol=1e-10)


def test_the_first_order_meta_gradient_is_the_policy_gradient_at_the_adapted_point() -> None:
    module = two_states.TwoStatePolicy()
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    found = FirstOrder(inner_loop(module, 2))(learner, KnownTask(module)).gradient
    point = theta_of(module)
    for _ in range(2):
        point = {name: point[name] + RATE * slope for name, slope in exact_gradient(module, point).items()}
    assert torch.allclose(-found["preference"], exact_gradient(module, point)["preference"], atol=1e-12)


def test_the_meta_gradient_of_drawn_courses_is_right_on_average() -> None:
    module = two_states.TwoStatePolicy()
    strategy = Exact(inner_loop(module, 1, rate=6.0))
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    exact = strategy(learner, KnownTask(module)).gradient["preference"]
    drawn = torch.stack(
        [strategy(learner, DrawnQuery(module, seed=seed)).gradient["preference"] for seed in range(2000)]
    )
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - exact).abs() < STANDARD_ERRORS * error).all()
    # Enough draws to tell a meta-gradient without second-order terms from the right one.
    first = FirstOrder(inner_loop(module, 1, rate=6.0))(learner, KnownTask(module)).gradient["preference"]
    assert ((first - exact).abs() > STANDARD_ERRORS * error).any()


def test_curvature_of_drawn_courses_is_right_on_average() -> None:
    module = two_states.TwoStatePolicy()
    theta = theta_of(module)
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    everything = two_states.drawn_courses(module, theta, 2000, generator)
    drawn = torch.stack(
        [
            learner.hvp(
                theta,
                Trajectories(*(field[i : i + 1] for field in everything)),
                {"preference": direction},
            )["preference"]
            for i in range(2000)
        ]
    )
    error = drawn.std(0) / len(drawn) ** 0.5
    exact = -exact_hessian(module, theta) @ direction
    assert ((drawn.mean(0) - exact).abs() < STANDARD_ERRORS * error).all()


PULL = 2.0


def test_implicit_without_conjugate_gradients_is_first_order_at_the_proximal_point() -> None:
    module = two_states.TwoStatePolicy()
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    inner = InnerLoop(SGD(), LearningRates(0.2, ["preference"], 30), 30, PULL)
    implicit = Implicit(inner, 0)(learner, KnownTask(module))
    first = FirstOrder(inner)(learner, KnownTask(module))
    assert torch.equal(implicit.gradient["preference"], first.gradient["preference"])


def test_implicit_with_many_steps_solves_the_closed_form() -> None:
    module = two_states.TwoStatePolicy()
    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    inner = InnerLoop(SGD(), LearningRates(0.3, ["preference"], 60), 60, PULL)
    found = Implicit(inner, 20)(learner, KnownTask(module))
    point = theta_of(module)
    anchor = point["preference"]
    for _ in range(60):
        slope = exact_gradient(module, point)["preference"] - PULL * (point["preference"] - anchor)
        point = {"preference": point["preference"] + 0.3 * slope}
    target = -exact_gradient(module, point)["preference"]
    # The inner loop's batches were played on the way; the first few, far from φ*, count little.
    matrix = torch.eye(2, dtype=torch.float64) - exact_hessian(module, point) / PULL
    expected = torch.linalg.solve(matrix, target)
    assert found.extras["stationarity"].item() < 0.02
    assert torch.allclose(found.gradient["preference"], expected, rtol=1e-3)


def test_the_derivative_of_the_solution_is_what_implicit_gives() -> None:
    """d J(φ*(θ)) / dθ by differences, with φ* solved to the end."""
    module = two_states.TwoStatePolicy()

    def solved_return(anchor: Tensor) -> Tensor:
        point = anchor.clone()
        for _ in range(200):
            slope = exact_gradient(module, {"preference": point})["preference"] - PULL * (point - anchor)
            point = point + 0.3 * slope
        return two_states.expected_return(module, {"preference": point}).detach()

    learner = FunctionalLearner(module, PolicyLoss("dice", value=0.0))
    inner = InnerLoop(SGD(), LearningRates(0.3, ["preference"], 200), 200, PULL)
    found = Implicit(inner, 20)(learner, KnownTask(module)).gradient["preference"]
    differences = central_difference(solved_return, theta_of(module)["preference"])
    assert torch.allclose(-found, differences, rtol=1e-3)


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, -1.0, 1.0, 1.0]])
    played = Played(torch.zeros(2, 4, 1), torch.zeros(2, 4), rewards, torch.zeros(2).double().numpy())
    features = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1))
    found = Advantages(discount=0.9, smoothing=0.8, ridge=0.5).of(played, features)
    target = [
        [sum(0.9 ** (u - t) * row[u] for u in range(t, 4)) for t in range(4)] for row in rewards.double()
    ]
    columns = [
        [1.0, t / 3, (t / 3) ** 2, (t / 3) ** 3, *features[b, t].double().tolist()]
        for b in range(2)
        for t in range(4)
    ]
    x, y = torch.tensor(columns, dtype=torch.float64), torch.tensor(target, dtype=torch.float64).flatten()
    fit = (x @ torch.linalg.inv(x.T @ x + 0.5 * torch.eye(6, dtype=torch.float64)) @ x.T @ y).reshape(2, 4)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for b in range(2):
        following = 0.0
        for t in reversed(range(4)):
            after = fit[b, t + 1] if t < 3 else fit[b, 3]
            surprise = rewards[b, t] + 0.9 * after - fit[b, t]
            following = surprise + 0.9 * 0.8 * following
            expected[b, t] = following
    expected = (expected - expected.mean()) / expected.std(correction=0)
    assert torch.allclose(found.double(), expected, atol=1e-4)


def test_discounted_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    assert discounted(rewards, 0.5).tolist() == [[3.0, 4.0, 4.0]]
