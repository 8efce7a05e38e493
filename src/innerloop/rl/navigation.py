"""MAML's own test of reinforcement learning: a point that must find a goal it is not told (Finn 2017, 5.3).

The point starts at the origin of the plane and moves by up to 0.1 in each direction a step; the reward is
minus the squared distance to the goal, which lies anywhere in a square and differs by task. What is seen is
the place alone, so no fixed policy reaches every goal: only adaptation does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from innerloop.core.params import Params
from innerloop.core.sampler import SamplerState, derive_seed
from innerloop.core.task import Task
from innerloop.rl.policy_gradient import Advantages, log_probabilities
from innerloop.rl.rollout import Played, Trajectories

REACH = 0.5
"""Goals lie between minus this and this, in both directions."""
FARTHEST_STEP = 0.1
ARRIVED = 0.01
"""Distance at which an episode is over: the point stays, and earns nothing more."""


class PointPolicy(nn.Module):
    """Normally distributed moves around the output of a network of two hidden layers.

    Args:
        width: of the hidden layers.
        deviation: of moves, at the beginning.
    """

    def __init__(self, width: int = 100, deviation: float = 0.1) -> None:
        super().__init__()
        last = nn.Linear(width, 2)
        # A point that knows nothing shall stay about where it is: far out every step costs a lot.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.mean = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
        self.log_deviation = nn.Parameter(torch.full((2,), deviation).log())

    def forward(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Moves ``... x 2`` from places ``... x 2`` and normal noise of the same shape."""
        moves: Tensor = self.mean(observations) + self.log_deviation.exp() * noise
        return moves

    def log_probability(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The logarithm of the density of moves, ``...``, up to a constant."""
        standard = (actions - self.mean(observations)) / self.log_deviation.exp()
        density: Tensor = -0.5 * standard**2 - self.log_deviation
        return density.sum(-1)

    def value(self, observations: Tensor) -> Tensor:
        """No critic: nothing is expected."""
        return torch.zeros_like(observations[..., 0])

    def entropy(self, observations: Tensor) -> Tensor:
        """Of the moves, ``...``, up to a constant."""
        return self.log_deviation.sum().expand(observations.shape[:-1])


@dataclass(frozen=True)
class NavigationTask:
    """One goal.

    Args:
        policy: its shape; the parameters come with each call.
        goal: where to.
        seed: of all episodes.
        episodes: of each batch.
        steps: of an episode.
        advantages: what moves are weighed with.
    """

    policy: PointPolicy
    goal: tuple[float, float]
    seed: int
    episodes: int = 20
    steps: int = 100
    advantages: Advantages = field(default_factory=lambda: Advantages(discount=0.99, smoothing=1.0))

    @property
    def name(self) -> str:
        """The goal."""
        return f"goal ({self.goal[0]:.2f}, {self.goal[1]:.2f})"

    def support(self, step: int, params: Params) -> Trajectories:
        """Episodes for an inner step, played with these parameters."""
        return self._batch(f"support {step}", params)

    def query(self, params: Params) -> Trajectories:
        """Episodes to be judged on, played with these parameters."""
        return self._batch("query", params)

    def play(self, place: str, params: Params) -> Played:
        """Episodes, a pure function of the seed, the place and the parameters."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, place))
        noise = torch.randn(self.steps, self.episodes, 2, generator=generator)
        goal, here = torch.tensor(self.goal), torch.zeros(self.episodes, 2)
        seen, moves, rewards = [], [], []
        going = torch.ones(self.episodes, dtype=torch.bool)
        with torch.no_grad():
            for step in range(self.steps):
                move: Tensor = functional_call(self.policy, params, (here, noise[step]))
                seen.append(here)
                moves.append(move)
                here = here + move.clamp(-FARTHEST_STEP, FARTHEST_STEP) * going[:, None]
                square = ((here - goal) ** 2).sum(1)
                rewards.append(torch.where(going, -square, 0.0))
                going &= square > ARRIVED**2
        return Played(
            torch.stack(seen, 1), torch.stack(moves, 1), torch.stack(rewards, 1), np.zeros(self.episodes)
        )

    def _batch(self, place: str, params: Params) -> Trajectories:
        played = self.play(place, params)
        with torch.no_grad():
            likely = log_probabilities(self.policy, params, played.observations, played.actions)
        return Trajectories(
            played.observations,
            played.actions,
            likely,
            played.rewards,
            self.advantages.of(played, played.observations),
            torch.zeros_like(played.rewards),
        )


class NavigationSampler:
    """Gives meta-batches of goals without end.

    Args:
        policy: that is trained.
        per_step: goals in a meta-batch.
        seed: of goals and episodes.
        episodes: of each batch.
    """

    def __init__(self, policy: PointPolicy, per_step: int, seed: int, episodes: int = 20) -> None:
        self._policy, self._per_step, self._seed, self._episodes = policy, per_step, seed, episodes
        self._drawn = 0

    def sample(self) -> list[Task]:
        """The goals of the next meta-batch."""
        first, self._drawn = self._drawn, self._drawn + self._per_step
        return [self.task(number) for number in range(first, self._drawn)]

    def task(self, number: int) -> NavigationTask:
        """The goal of this number, always the same."""
        seed = derive_seed(self._seed, number)
        x, y = np.random.default_rng(seed).uniform(-REACH, REACH, 2)
        return NavigationTask(self._policy, (float(x), float(y)), seed, self._episodes)

    def state_dict(self) -> SamplerState:
        """How many goals were drawn."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved position."""
        self._drawn = state["drawn"]
