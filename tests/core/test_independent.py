"""The meta-gradient against what shares no code with it: plain PyTorch, finite differences, algebra."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.families import (
    FAMILIES,
    Family,
    distance,
    fixed_rates,
    flat,
    learned_rates,
    quadratic_family,
)
from innerloop.core.inner import SGD, Adam, InnerRule
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner
from innerloop.core.metagrad import Exact, FirstOrder
from innerloop.core.task import Batch, FixedTask

pytestmark = pytest.mark.usefixtures("float64_llama")


class Called(nn.Module):
    """A loss as a module, so that ``functional_call`` can be given the point it is taken at."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.model, self.objective = family.module, family.objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective(self.model, batch)


def plain_unroll(
    family: Family, task: FixedTask, rates: dict[str, Tensor], steps: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """MAML as a tutorial would write it: SGD steps with ``create_graph=True``, then one backward pass."""
    called = Called(family)
    start = {name: tensor.requires_grad_() for name, tensor in family.theta().items()}
    alpha = {name: rate.clone().requires_grad_() for name, rate in rates.items()}

    def loss_at(point: dict[str, Tensor], batch: Batch) -> Tensor:
        loss: Tensor = functional_call(called, {f"model.{name}": p for name, p in point.items()}, (batch,))
        return loss

    point = start
    for step in range(steps):
        loss = loss_at(point, task.support_batches[step])
        gradient = torch.autograd.grad(loss, list(point.values()), create_graph=True)
        point = {
            name: p - alpha[name][step] * g for (name, p), g in zip(point.items(), gradient, strict=True)
        }
    query_loss = loss_at(point, task.query_batch)
    pulled = torch.autograd.grad(query_loss, [*start.values(), *alpha.values()])
    return (
        dict(zip(start, pulled[: len(start)], strict=True)),
        dict(zip(alpha, pulled[len(start) :], strict=True)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_equals_an_unroll_in_plain_pytorch(family: str) -> None:
    built = FAMILIES[family]()
    rates, task = learned_rates(built, 3), built.draw(40, 3)
    gradient, rate_gradient = plain_unroll(built, task, rates.values, 3)
    got = Exact(InnerLoop(SGD(), rates, 3))(FunctionalLearner(built.module, built.objective), task)
    assert distance(got.gradient, gradient) < 1e-9
    assert distance(got.rate_gradient, rate_gradient) < 1e-9


Stepper = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]


def adapted_query_loss(
    family: Family, theta: dict[str, Tensor], task: FixedTask, rate: float, make: Stepper, clip: float | None
) -> float:
    """The query loss after fine-tuning a copy of the model from θ with PyTorch's own optimizer."""
    module = copy.deepcopy(family.module)
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(theta[name])
    optimizer = make(list(parameters.values()), rate)
    for batch in task.support_batches:
        optimizer.zero_grad()
        family.objective(module, batch).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters.values(), clip)
        optimizer.step()
    with torch.no_grad():
        return float(family.objective(module, task.query_batch))


def adam(betas: tuple[float, float]) -> tuple[InnerRule, Stepper, float, None]:
    """Both Adams, with an ε that keeps g / (|g| + ε) from jumping within the width of a finite difference."""

    def stepper(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=1e-2)

    return Adam(betas=betas, eps=1e-2), stepper, 0.1, None


@pytest.mark.parametrize(
    ("rule", "stepper", "scale", "clip"),
    [
        (SGD(), torch.optim.SGD, 1.0, None),
        (SGD(max_norm=0.5), torch.optim.SGD, 1.0, 0.5),
        adam((0.9, 0.999)),
        adam((0.0, 0.999)),
    ],
    ids=["sgd", "clipped sgd", "adam", "adam of reptile"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_equals_finite_differences_of_the_adapted_loss(
    family: str, rule: InnerRule, stepper: Stepper, scale: float, clip: float | None
) -> None:
    """End to end: perturb θ, fine-tune a copy with torch.optim, look at the query loss."""
    built = FAMILIES[family]()
    steps, width = 2, 1e-7
    task, rate = built.draw(50, steps), scale * built.inner_rate
    inner = InnerLoop(rule, fixed_rates(built, steps, scale), steps)
    result = Exact(inner)(InPlaceLearner(built.module, built.objective), task)
    theta = built.theta()
    loss = adapted_query_loss(built, theta, task, rate, stepper, clip)
    assert float(result.query_loss) == pytest.approx(loss, rel=1e-5)  # clip_grad_norm_ divides by norm + 1e-6
    directions = torch.Generator().manual_seed(6)
    for _ in range(2):
        along = {name: torch.randn(t.shape, generator=directions, dtype=t.dtype) for name, t in theta.items()}
        ahead, behind = (
            adapted_query_loss(
                built, {n: t + side * along[n] for n, t in theta.items()}, task, rate, stepper, clip
            )
            for side in (width, -width)
        )
        slope = sum(float((result.gradient[name] * along[name]).sum()) for name in theta)
        assert slope == pytest.approx((ahead - behind) / (2 * width), rel=1e-4)


def test_quadratics_in_closed_form() -> None:
    """θ_K and the meta-gradient ∏ₖ(I − αAₖ) (A_q θ_K − b_q) of K gradient steps on quadratics."""
    built = quadratic_family()
    steps, rate = 4, built.inner_rate
    task = built.draw(60, steps)
    point = flat(built.theta())
    jacobian = torch.eye(6, dtype=torch.float64)
    for matrix, target in task.support_batches:
        point = point - rate * (matrix @ point - target)
        jacobian = (torch.eye(6, dtype=torch.float64) - rate * matrix) @ jacobian
    matrix, target = task.query_batch
    at_query = matrix @ point - target
    learner = FunctionalLearner(built.module, built.objective)
    inner = InnerLoop(SGD(), fixed_rates(built, steps), steps)
    exact, first_order = Exact(inner)(learner, task), FirstOrder(inner)(learner, task)
    torch.testing.assert_close(flat(exact.gradient), jacobian.T @ at_query, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(flat(first_order.gradient), at_query, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        exact.query_loss, (0.5 * point @ matrix @ point - target @ point).reshape(1), rtol=1e-12, atol=0
    )
