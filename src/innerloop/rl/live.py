"""A trained policy on a real cluster: one episode, step by step, and what came of it."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.core.signals import StopRequest
from innerloop.rl.artifacts import Artifact
from innerloop.rl.kubernetes import ClusterSettings, FailedStep, KubernetesCluster, MetricsSource
from innerloop.rl.observation import Layout
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.simulator.snapshot import Outcome, Snapshot

COURSE_FILE = "course.jsonl"


@dataclass(frozen=True)
class Step:
    """One control step.

    Args:
        number: from 1.
        deployments: asked for, by name.
        ready: pods that serve, by name.
        latency: mean seconds of a request.
        reward: of the step.
    """

    number: int
    deployments: dict[str, int]
    ready: dict[str, int]
    latency: float
    reward: float


@dataclass(frozen=True)
class Course:
    """An episode that is over.

    Args:
        steps: as they went.
        failed: what could not be done.
    """

    steps: tuple[Step, ...]
    failed: tuple[FailedStep, ...]

    @property
    def total(self) -> float:
        """The return."""
        return sum(step.reward for step in self.steps)


def run_on_cluster(
    artifact: Artifact,
    settings: ClusterSettings,
    metrics: MetricsSource,
    tell: Callable[[Step], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Course:
    """Lets a policy scale the listed deployments for one episode, taking its likeliest actions.

    The policy is used as it was trained; the layout is the cluster's own, on which its weights do not depend.
    A stop signal ends the episode after the step it comes in, and replicas are put back if settings say so.

    Args:
        artifact: the policy.
        settings: of the cluster.
        metrics: where load and latency are read.
        tell: told of every step.
        clock: seconds; for tests.
        sleep: waits; for tests.

    Raises:
        InputError: a policy that does not scale, or settings that do not fit the cluster.
        ClusterError: the cluster cannot be seen any more.
        Interrupted: a stop signal came.
    """
    if artifact.config.family.kind != "scaling":
        raise InputError("a real cluster is scaled, so the policy must be of a scaling family")
    steps: list[Step] = []
    with KubernetesCluster(settings, metrics, clock, sleep) as cluster, StopRequest() as stop:
        policy, before = _fitted(artifact, cluster.snapshot()), None
        while not cluster.done:
            stop.check()
            snapshot = cluster.snapshot()
            seen = torch.from_numpy(policy.layout.observe(snapshot, before))
            with torch.no_grad():
                chosen = policy(seen, torch.zeros(1, *policy.noise_shape()))
            outcome = cluster.step(*artifact.config.control.apply(chosen.numpy(), snapshot, policy.layout))
            before = snapshot
            steps.append(_step(len(steps) + 1, settings.deployments, cluster.snapshot(), outcome))
            tell(steps[-1])
        return Course(tuple(steps), tuple(cluster.failed_steps))


def write_course(folder: Path, course: Course) -> Path:
    """Writes one line a step, whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    failed = {entry.step: entry.message for entry in course.failed}
    lines = [
        {
            "step": step.number,
            "deployments": step.deployments,
            "ready": step.ready,
            "latency": step.latency,
            "reward": step.reward,
            "failed": failed.get(step.number),
        }
        for step in course.steps
    ]
    path = folder / COURSE_FILE
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


def _fitted(artifact: Artifact, snapshot: Snapshot) -> ClusterPolicy:
    """The policy for the cluster's own layout."""
    layout = Layout(snapshot.application.shape[1], snapshot.node.shape[1], snapshot.region_rate.shape[1])
    policy = ClusterPolicy(artifact.config.shape, layout)
    policy.load_state_dict(artifact.policy.state_dict())
    return policy


def _step(number: int, names: tuple[str, ...], snapshot: Snapshot, outcome: Outcome) -> Step:
    def counted(values: Iterable[float]) -> dict[str, int]:
        return {name: int(value) for name, value in zip(names, values, strict=True)}

    return Step(
        number,
        counted(snapshot.desired[0]),
        counted(snapshot.ready[0]),
        float(outcome.latency[0]),
        float(outcome.reward[0]),
    )
