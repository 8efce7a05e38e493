"""Clusters as tasks of the core: support and query batches are episodes that their policy plays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from innerloop.core.learner import VmapLearner
from innerloop.core.params import Params
from innerloop.core.sampler import IndexStream, SamplerState, derive_seed
from innerloop.core.task import Task
from innerloop.rl.controls import Control
from innerloop.rl.families import Members
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.policy_gradient import Advantages, PolicyLoss, discounted
from innerloop.rl.rollout import Played, Trajectories, draw_noise, play
from innerloop.rl.simulator.scenario import Scenario


class _LogProbability(nn.Module):
    """A policy whose call gives log-probabilities, since PyTorch lends parameters to calls alone."""

    def __init__(self, policy: ClusterPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.policy.log_probability(observations, actions)


@dataclass(frozen=True)
class Collector:
    """Plays episodes of several tasks side by side, each task with parameters of its own.

    Args:
        policy: its parameters are those that are not adapted.
        control: what its actions are.
        advantages: what actions are weighed with.
        reward_scale: what the critic sees rewards multiplied with.
    """

    policy: ClusterPolicy
    control: Control
    advantages: Advantages
    reward_scale: float = 0.1

    def play(
        self, scenarios: Sequence[Scenario], seeds: Sequence[int], params: Params, episodes: int
    ) -> list[Played]:
        """Episodes of each of T tasks.

        Args:
            scenarios: one a task.
            seeds: one a task; what is played is a function of it and of the parameters.
            params: of the policy, with a leading dimension T.
            episodes: of each task.
        """
        steps, layout = scenarios[0].steps, self.policy.layout
        noise = torch.cat([draw_noise(self.policy, episodes, steps, seed) for seed in seeds])

        def act(observations: Tensor, noise: Tensor) -> Tensor:
            together = vmap(lambda p, o, n: functional_call(self.policy, p, (o, n)))
            shaped = [t.reshape(len(scenarios), episodes, *t.shape[1:]) for t in (observations, noise)]
            actions: Tensor = together(params, *shaped).flatten(0, 1)
            return actions

        everything = play(
            act,
            [scenario for scenario in scenarios for _ in range(episodes)],
            [derive_seed(seed, number) for seed in seeds for number in range(episodes)],
            self.control,
            layout,
            noise,
        )
        return [
            Played(
                everything.observations[start : start + episodes],
                everything.actions[start : start + episodes],
                everything.rewards[start : start + episodes],
                everything.violations[start : start + episodes],
            )
            for start in range(0, len(noise), episodes)
        ]

    def log_probabilities(self, played: Sequence[Played], params: Params) -> Tensor:
        """Of the actions of T tasks under their parameters, tasks by episodes by steps."""
        named = {f"policy.{name}": p for name, p in params.items()}
        host = _LogProbability(self.policy)
        with torch.no_grad():
            together = vmap(lambda p, o, a: functional_call(host, p, (o, a)))
            observations = torch.stack([entry.observations for entry in played])
            actions = torch.stack([entry.actions for entry in played])
            likely: Tensor = together(named, observations, actions)
        return likely

    def batch(self, played: Played, log_probabilities: Tensor) -> Trajectories:
        """Played episodes, and how likely their actions were (``B x T``), as the objective takes them."""
        features = self.policy.layout.split(played.observations).applications.mean(-2)
        return Trajectories(
            played.observations,
            played.actions,
            log_probabilities,
            played.rewards,
            self.advantages.of(played, features),
            discounted(self.reward_scale * played.rewards, self.advantages.discount),
        )


@dataclass(frozen=True)
class ClusterTask:
    """One cluster to adapt to.

    Args:
        scenario: the cluster.
        seed: of all its episodes.
        collector: plays them.
        support_episodes: an inner step.
        query_episodes: to be judged on.
    """

    scenario: Scenario
    seed: int
    collector: Collector
    support_episodes: int
    query_episodes: int

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.scenario.name

    def support(self, step: int, params: Params) -> Trajectories:
        """Episodes for an inner step, played with these parameters."""
        return _gather([self], step, {name: p[None] for name, p in params.items()})[0]

    def query(self, params: Params) -> Trajectories:
        """Episodes to be judged on, played with these parameters."""
        return _gather([self], None, {name: p[None] for name, p in params.items()})[0]


@dataclass(frozen=True)
class _Together:
    """Several clusters whose episodes are played side by side."""

    tasks: Sequence[ClusterTask]

    @property
    def name(self) -> str:
        return ", ".join(task.name for task in self.tasks)

    def support(self, step: int, params: Params) -> Trajectories:
        return _stacked(_gather(self.tasks, step, params))

    def query(self, params: Params) -> Trajectories:
        return _stacked(_gather(self.tasks, None, params))


class ClusterLearner(VmapLearner):
    """A policy adapted to several clusters in one call. See :class:`VmapLearner`.

    Args:
        policy: its parameters that require a gradient are adapted.
        loss: the objective.
        tasks_at_once: clusters in a call.
    """

    def __init__(self, policy: ClusterPolicy, loss: PolicyLoss, tasks_at_once: int) -> None:
        super().__init__(policy, loss, tasks_at_once, batch_size=_environment_steps)

    def bundle(self, tasks: Sequence[Task]) -> Task:
        """The tasks, played side by side; the next excursion is theirs."""
        super().bundle(tasks)
        return _Together([task for task in tasks if isinstance(task, ClusterTask)])


class ClusterSampler:
    """Gives meta-batches of a family's training members, every one a new cluster unless they are limited.

    Args:
        members: to draw from.
        count: how many of them there are to train on; none for no end.
        per_step: clusters in a meta-batch.
        seed: of the order and the episodes.
        collector: plays the episodes.
        support_episodes: an inner step.
        query_episodes: to be judged on.
    """

    def __init__(
        self,
        members: Members,
        count: int | None,
        per_step: int,
        seed: int,
        collector: Collector,
        support_episodes: int,
        query_episodes: int,
    ) -> None:
        self._members, self._per_step, self._seed, self._collector = members, per_step, seed, collector
        self._support, self._query = support_episodes, query_episodes
        self._stream = None if count is None else IndexStream(count, derive_seed(seed, "clusters"))
        self._drawn = 0

    def sample(self) -> list[Task]:
        """The clusters of the next meta-batch."""
        first, self._drawn = self._drawn, self._drawn + self._per_step
        numbers = range(first, self._drawn) if self._stream is None else self._stream.take(self._per_step)
        return [
            ClusterTask(
                self._members.scenario(number),
                derive_seed(self._seed, "task", first + place),
                self._collector,
                self._support,
                self._query,
            )
            for place, number in enumerate(numbers)
        ]

    def state_dict(self) -> SamplerState:
        """How many clusters were drawn, and the position among them."""
        return {"drawn": self._drawn, "position": 0 if self._stream is None else self._stream.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved position."""
        self._drawn = state["drawn"]
        if self._stream is not None:
            self._stream.position = state["position"]


def _gather(tasks: Sequence[ClusterTask], step: int | None, params: Params) -> list[Trajectories]:
    """Episodes for an inner step, or to be judged on, of each of T tasks with parameters of its own."""
    first = tasks[0]
    episodes = first.query_episodes if step is None else first.support_episodes
    place = "query" if step is None else f"support {step}"
    seeds = [derive_seed(task.seed, place) for task in tasks]
    collector = first.collector
    played = collector.play([task.scenario for task in tasks], seeds, params, episodes)
    likely = collector.log_probabilities(played, params)
    return [collector.batch(entry, each) for entry, each in zip(played, likely, strict=True)]


def _stacked(batches: Sequence[Trajectories]) -> Trajectories:
    return Trajectories(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))


def _environment_steps(batch: Trajectories) -> int:
    return batch.rewards.numel()
