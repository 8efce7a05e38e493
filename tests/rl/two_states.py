"""A problem small enough to know everything: two states, two actions, three steps, every course listed.

Nothing here uses the package's policy gradients: the expected return is a sum over all courses.
"""

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor, nn

from innerloop.rl.rollout import Trajectories

STEPS = 3
REWARD = torch.tensor([[0.3, -0.2], [1.1, 0.4]], dtype=torch.float64)
"""By state and action."""
MOVES = torch.tensor([[0.8, 0.3], [0.6, 0.1]], dtype=torch.float64)
"""Probability that state 1 follows, by state and action."""
BASELINE = torch.tensor([0.37, -1.2], dtype=torch.float64)
"""By state; any numbers will do."""


class TwoStatePolicy(nn.Module):
    """Chooses action 1 with probability σ(bent θ_s); the bend couples the two parameters."""

    def __init__(self, start: tuple[float, float] = (0.2, -0.4)) -> None:
        super().__init__()
        self.preference = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def log_probability(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``B x T`` from one-hot states ``B x T x 2`` and actions ``B x T``."""
        bent = self.preference + 0.3 * self.preference.flip(0) ** 2
        logits = observations @ bent
        return nn.functional.logsigmoid(torch.where(actions > 0, logits, -logits))

    def value(self, observations: Tensor) -> Tensor:
        """A critic that is not learned."""
        return observations @ BASELINE

    def entropy(self, observations: Tensor) -> Tensor:
        """Not asked for."""
        raise NotImplementedError


def courses() -> tuple[Tensor, Tensor]:
    """All states ``B x T`` and actions ``B x T``; the first state is 0."""
    states, actions = [], []
    for later in product((0, 1), repeat=STEPS - 1):
        for chosen in product((0, 1), repeat=STEPS):
            states.append((0, *later))
            actions.append(chosen)
    return torch.tensor(states), torch.tensor(actions)


STATES, ACTIONS = courses()
ONE_HOT = nn.functional.one_hot(STATES, 2).double()
REWARDS = REWARD[STATES, ACTIONS]
TO_GO = REWARDS.flip(1).cumsum(1).flip(1)
_FOLLOWS = MOVES[STATES[:, :-1], ACTIONS[:, :-1]]
NATURE = torch.where(STATES[:, 1:] > 0, _FOLLOWS, 1 - _FOLLOWS).prod(1)
"""The probability of a course's states given its actions, ``B``."""


def probabilities(module: nn.Module, params: Mapping[str, Tensor]) -> Tensor:
    """Of every course under a policy, ``B``; differentiable."""
    host = _Host(module)
    named = {f"policy.{name}": p for name, p in params.items()}
    likely: Tensor = torch.func.functional_call(host, named, (ONE_HOT, ACTIONS))
    return NATURE * likely.sum(1).exp()


def expected_return(module: nn.Module, params: Mapping[str, Tensor]) -> Tensor:
    """J(θ), the mean reward of a step; differentiable as often as one likes."""
    return (probabilities(module, params) * REWARDS.sum(1)).sum() / STEPS


def log_probabilities(module: nn.Module, params: Mapping[str, Tensor]) -> Tensor:
    """Of every action of every course, ``B x T``."""
    named = {f"policy.{name}": p for name, p in params.items()}
    with torch.no_grad():
        likely: Tensor = torch.func.functional_call(_Host(module), named, (ONE_HOT, ACTIONS))
    return likely


def log_probability_at(module: nn.Module, preference: Tensor, course: int, step: int) -> Tensor:
    """Of one action; differentiable."""
    likely: Tensor = torch.func.functional_call(
        _Host(module), {"policy.preference": preference}, (ONE_HOT[course, step], ACTIONS[course, step])
    )
    return likely


def every_course(module: nn.Module, params: Mapping[str, Tensor], baseline: bool = True) -> Trajectories:
    """All courses as one batch, weighed so that the loss's mean is the expectation under the policy."""
    weight = (len(STATES) * probabilities(module, params)).detach()[:, None]
    advantages = TO_GO - (BASELINE[STATES] if baseline else 0.0)
    return Trajectories(
        ONE_HOT, ACTIONS, log_probabilities(module, params), weight * REWARDS, weight * advantages, TO_GO
    )


def drawn_courses(
    module: nn.Module, params: Mapping[str, Tensor], count: int, generator: torch.Generator
) -> Trajectories:
    """So many courses as the policy would play them."""
    chances = probabilities(module, params).detach()
    chosen = torch.multinomial(chances, count, replacement=True, generator=generator)
    advantages = TO_GO - BASELINE[STATES]
    fields = (ONE_HOT, ACTIONS, log_probabilities(module, params), REWARDS, advantages, TO_GO)
    return Trajectories(*(field[chosen] for field in fields))


class _Host(nn.Module):
    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.policy.log_probability(observations, actions)  # type: ignore[operator,no-any-return]
