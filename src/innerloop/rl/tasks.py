"""Clusters as tasks of the core: support and query batches are episodes that their policy plays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import vmap

from innerloop.core.learner import VmapLearner
from innerloop.core.params import Params
from innerloop.core.sampler import SamplerState, derive_seed
from innerloop.core.task import Task
from innerloop.rl.controls import Control
from innerloop.rl.families import Members
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.policy_gradient import Advantages, PolicyLoss, discounted, log_probabilities
from innerloop.rl.rollout import Played, Trajectories, acting_for_each, draw_noise, play
from innerloop.rl.simulator.scenario import Scenario


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
        everything = play(
            acting_for_each(self.policy, params, len(scenarios)),
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
        with torch.no_grad():
            together = vmap(lambda p, o, a: log_probabilities(self.policy, p, o, a))
            observations = torch.stack([entry.observations for entry in played])
            actions = torch.stack([entry.actions for entry in played])
            likely: Tensor = together(params, observations, actions)
        return likely

    def batch(self, played: Played, log_probabilities: Tensor, judged: bool) -> Trajectories:
        """Played episodes as the objective takes them.

        Args:
            played: B episodes of T steps.
            log_probabilities: of their actions, ``B x T``.
            judged: whether they judge the adapted policy: then a cluster weighs as much as is at stake in it,
                while the steps of adaptation are equally long everywhere.
        """
        features = self.policy.layout.split(played.observations).applications.mean(-2)
        return Trajectories(
            played.observations,
            played.actions,
            log_probabilities,
            played.rewards,
            self.advantages.of(played, features, self.reward_scale if judged else None),
            discounted(self.reward_scale * played.rewards, self.advantages.discount),
        )


@dataclass(frozen=True)
class Support:
    """How an inner loop comes by its episodes.

    Args:
        episodes: played at once.
        uses: inner steps in a row without playing more.
        remembered: whether a step uses all episodes so far, and not the newest alone. What steps cost, and
            so which cluster it is, old episodes tell as well as new ones.
    """

    episodes: int
    uses: int = 1
    remembered: bool = False

    def plays(self, step: int) -> bool:
        """Whether episodes are played for an inner step."""
        return step % self.uses == 0

    def at_hand(self, before: Sequence[Trajectories], new: Trajectories, step: int) -> list[Trajectories]:
        """The batches an inner step uses, given those of the step before and what was played for it."""
        return [*before, new] if self.remembered and step else [new]


@dataclass(frozen=True)
class ClusterTask:
    """One cluster to adapt to.

    Args:
        scenario: the cluster.
        seed: of all its episodes.
        collector: plays them.
        support_use: how its support episodes are played and used.
        query_episodes: to be judged on.
        given: the batches that were played side by side with other tasks', in the order they were asked for.
        played: what the last inner step of this task alone used.
    """

    scenario: Scenario
    seed: int
    collector: Collector
    support_use: Support
    query_episodes: int
    given: list[Trajectories] = field(default_factory=list, repr=False, compare=False)
    played: list[Trajectories] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.scenario.name

    def support(self, step: int, params: Params) -> Trajectories:
        """Episodes for an inner step, played with these parameters or at steps before."""
        if self.support_use.plays(step):
            new = _gather([self], step, {name: p[None] for name, p in params.items()})[0]
            self.played[:] = self.support_use.at_hand(self.played, new, step)
        return _joined(self.played, 0)

    def query(self, params: Params) -> Trajectories:
        """Episodes to be judged on, played with these parameters."""
        return _gather([self], None, {name: p[None] for name, p in params.items()})[0]


@dataclass
class _Together:
    """Several clusters whose episodes are played side by side.

    A meta-batch that is used again gives the batches it gave before, in the order they were asked for, which
    every strategy keeps: their log-probabilities tell the loss which policy played them.
    """

    tasks: Sequence[ClusterTask]
    asked: int = 0
    support_batches: list[Trajectories] = field(default_factory=list)

    @property
    def name(self) -> str:
        return ", ".join(task.name for task in self.tasks)

    def support(self, step: int, params: Params) -> Trajectories:
        use = self.tasks[0].support_use
        if use.plays(step):
            self.support_batches = use.at_hand(self.support_batches, self._next(step, params), step)
        return _joined(self.support_batches, 1)

    def query(self, params: Params) -> Trajectories:
        return self._next(None, params)

    def _next(self, step: int | None, params: Params) -> Trajectories:
        place, self.asked = self.asked, self.asked + 1
        if any(len(task.given) <= place for task in self.tasks):
            for task, batch in zip(self.tasks, _gather(self.tasks, step, params), strict=True):
                task.given.append(batch)
        given = [task.given[place] for task in self.tasks]
        return Trajectories(*(torch.stack(tensors) for tensors in zip(*given, strict=True)))


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
        clusters = [task for task in tasks if isinstance(task, ClusterTask)]
        if len(clusters) != len(tasks):
            raise TypeError("only clusters can be played side by side")
        return _Together(clusters)


class ClusterSampler:
    """Gives meta-batches of a family's training members, each of them new clusters.

    Args:
        members: to draw from.
        per_step: clusters in a meta-batch.
        seed: of the episodes.
        collector: plays the episodes.
        support: how support episodes are played and used.
        query_episodes: to be judged on.
        repeats: meta-steps in a row that use a meta-batch and its episodes (ProMP; Rothfuss 2019).
    """

    def __init__(
        self,
        members: Members,
        per_step: int,
        seed: int,
        collector: Collector,
        support: Support,
        query_episodes: int,
        repeats: int = 1,
    ) -> None:
        self._members, self._per_step, self._seed, self._collector = members, per_step, seed, collector
        self._support, self._query, self._repeats = support, query_episodes, repeats
        self._steps = 0
        self._tasks: list[Task] = []

    def sample(self) -> list[Task]:
        """The clusters of the next meta-step."""
        batch, used = divmod(self._steps, self._repeats)
        self._steps += 1
        if not used or not self._tasks:
            self._tasks = [
                self._task(number) for number in range(batch * self._per_step, (batch + 1) * self._per_step)
            ]
        return self._tasks

    def state_dict(self) -> SamplerState:
        """How many meta-steps were sampled for."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved position. A meta-batch that was in use is played anew."""
        self._steps, self._tasks = state["steps"], []

    def _task(self, number: int) -> ClusterTask:
        return ClusterTask(
            self._members.scenario(number),
            derive_seed(self._seed, "task", number),
            self._collector,
            self._support,
            self._query,
        )


def _gather(tasks: Sequence[ClusterTask], step: int | None, params: Params) -> list[Trajectories]:
    """Episodes for an inner step, or to be judged on, of each of T tasks with parameters of its own."""
    first = tasks[0]
    episodes = first.query_episodes if step is None else first.support_use.episodes
    place = "query" if step is None else f"support {step}"
    seeds = [derive_seed(task.seed, place) for task in tasks]
    collector = first.collector
    played = collector.play([task.scenario for task in tasks], seeds, params, episodes)
    likely = collector.log_probabilities(played, params)
    return [collector.batch(entry, each, step is None) for entry, each in zip(played, likely, strict=True)]


def _joined(batches: Sequence[Trajectories], episodes: int) -> Trajectories:
    """Batches one after another along the dimension of episodes."""
    return Trajectories(*(torch.cat(tensors, episodes) for tensors in zip(*batches, strict=True)))


def _environment_steps(batch: Trajectories) -> int:
    return batch.rewards.numel()
