"""The expansion of Nichol 2018, section 5.1, measured.

For two inner batches and a small α the expected meta-gradients are A − 2αB (MAML), A − αB (first order) and
2A − αB (Reptile), with A = E[∇L] the mean gradient and B = E[∇²L₂ ∇L₁]. A and B are computed here by plain
PyTorch over all ordered pairs of batches, so that the expectations are exact; what our strategies return is
then regressed on A and αB.
"""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from innerloop.core import params as vector
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner
from innerloop.core.metagrad import Exact, FirstOrder, Reptile, Strategy
from innerloop.core.task import FixedTask

ALPHAS = (0.005, 0.01, 0.02)
BATCHES = 6


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    return cross_entropy(module(inputs), labels)


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    return [(2 * torch.randn(4, 3, dtype=torch.float64), torch.randint(0, 2, (4,))) for _ in range(BATCHES)]


def flat(params: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in params.values()])


def expansion(module: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A and B."""
    parameters = list(module.parameters())
    gradients = [torch.autograd.grad(loss(module, batch), parameters) for batch in batches]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for first, second in permutations(range(BATCHES), 2):
        at_second = torch.autograd.grad(loss(module, batches[second]), parameters, create_graph=True)
        slope = sum((g * h).sum() for g, h in zip(at_second, gradients[first], strict=True))
        assert isinstance(slope, Tensor)
        total += torch.cat([h.flatten() for h in torch.autograd.grad(slope, parameters)])
    mean = torch.stack([torch.cat([g.flatten() for g in gradient]) for gradient in gradients]).mean(0)
    return mean, total / (BATCHES * (BATCHES - 1))


@pytest.mark.parametrize(
    ("strategy", "of_a", "of_b"), [(Exact, 1.0, -2.0), (FirstOrder, 1.0, -1.0), (Reptile, 2.0, -1.0)]
)
def test_coefficients(
    strategy: type[Strategy],
    of_a: float,
    of_b: float,
    module: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
) -> None:
    """MAML adapts on the first batch and is judged on the second; Reptile's θ − φ = α(g₁ + g₂) takes both."""
    learner = FunctionalLearner(module, loss)
    mean, bend = expansion(module, batches)
    measured, designs = [], []
    for alpha in ALPHAS:
        total = torch.zeros_like(mean)
        for first, second in permutations(range(BATCHES), 2):
            if strategy is Reptile:
                task = FixedTask("pair", [batches[first], batches[second]], batches[second])
            else:
                task = FixedTask("pair", [batches[first]], batches[second])
            steps = len(task.support_batches)
            inner = InnerLoop(SGD(), LearningRates(alpha, list(learner.theta), steps), steps)
            total += flat(strategy(inner)(learner, task).gradient)
        expected = total / (BATCHES * (BATCHES - 1))
        measured.append(expected / alpha if strategy is Reptile else expected)
        designs.append(torch.stack([mean, alpha * bend], dim=1))
    solution = torch.linalg.lstsq(torch.cat(designs), torch.cat(measured).unsqueeze(1)).solution
    assert float(solution[0]) == pytest.approx(of_a, rel=0.05)
    assert float(solution[1]) == pytest.approx(of_b, rel=0.05)


def test_the_terms_differ_enough_to_be_told_apart(
    module: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    mean, bend = expansion(module, batches)
    assert float(bend.norm()) > 0.1 * float(mean.norm())
    cosine = float(mean @ bend / mean.norm() / bend.norm())
    assert abs(cosine) < 0.95
    assert vector.all_finite({"mean": mean, "bend": bend})
