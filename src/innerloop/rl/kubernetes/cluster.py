"""A real cluster, moved and seen as a simulated one is."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes.api import KubernetesApi
from innerloop.rl.kubernetes.errors import ClusterError, DeploymentGoneError
from innerloop.rl.kubernetes.metrics import Figures, MetricsSource
from innerloop.rl.kubernetes.settings import ClusterSettings
from innerloop.rl.kubernetes.view import ClusterView, NodeView, view_of
from innerloop.rl.simulator.outcome import outcome_of
from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.snapshot import Array, Outcome, Snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedStep:
    """A step in which something that was asked for did not happen.

    Args:
        step: its number, from 1.
        message: what, where, and how to mend it.
    """

    step: int
    message: str


class KubernetesCluster:
    """One episode on a real cluster: E = 1, D the listed deployments, N the nodes there are when it begins.

    A deployment that cannot be scaled, or is gone, makes a failed step; the episode goes on with the others.
    A cluster that cannot be seen ends it. Used in a ``with`` block, the replicas are put back at its end.

    What pods reserve is added up over the pods of the namespace only, since others may not be ours to read.
    Nodes that join later are not shown; pods on them are counted all the same.

    Args:
        settings: what may be scaled, and how the cluster is reached.
        metrics: where rates, latencies and usage are from.
        clock: seconds, never running backwards.
        sleep: waits so many seconds.

    Raises:
        InputError: a listed deployment that is not there, no node, or regions that name other nodes.
        ClusterError: the cluster cannot be reached, or does not allow what an episode needs.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        metrics: MetricsSource,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self._metrics, self._clock, self._sleep = settings, metrics, clock, sleep
        self.api = KubernetesApi(settings)
        self.steps = settings.steps
        self.step_number = 0
        self.failed_steps: list[FailedStep] = []
        """What went wrong without ending the episode."""
        self._changed: set[str] = set()
        self._nodes: tuple[NodeView, ...] = ()
        self._nodes, self._found = self._begin()
        self._round_trip = self._ways()
        self._snapshot, self._figures = self._look()

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.step_number >= self.steps

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes shown, in their order."""
        return tuple(node.name for node in self._nodes)

    def snapshot(self) -> Snapshot:
        """What was seen at the end of the last step."""
        return self._snapshot

    def step(self, desired: NDArray[np.integer] | Array, share: Array | None = None) -> Outcome:
        """Asks for replicas, waits until the control step is over, and looks.

        Args:
            desired: replicas, ``1 x D``; clipped to what the settings allow.
            share: not supported.

        Raises:
            InputError: the episode is over, ``share`` is given, or replicas of another shape.
            ClusterError: the cluster cannot be seen.
        """
        wanted = self._replicas(desired, share)
        end = self._clock() + self.settings.interval
        self.step_number += 1
        for name, replicas in wanted.items():
            self._changed.add(name)  # before it is done: an answer that is lost may have been a yes
            try:
                self.api.scale(name, replicas)
            except ClusterError as error:
                self._fail(str(error))
        if (left := end - self._clock()) > 0:
            self._sleep(left)
        self._snapshot, self._figures = self._look()
        arrived = self._snapshot.request_rate * self.settings.interval
        return outcome_of(
            self._snapshot,
            self.settings.reward,
            arrived=arrived,
            violations=arrived * self._figures.violations,
            refused=arrived * self._snapshot.refused,
        )

    def restore(self) -> None:
        """Puts the replicas of what was scaled back to what they were at the beginning.

        A deployment that is gone has none to put back. All are tried before an error is raised.

        Raises:
            ClusterError: some could not be put back; says which, and how many there were.
        """
        if self.settings.dry_run:
            return
        left, reasons = [], []
        for name in sorted(self._changed):
            try:
                self.api.scale(name, self._found[name])
            except DeploymentGoneError:
                logger.info("deployment %s is gone; there is nothing to put back", name)
            except ClusterError as error:
                left.append(f"{name} to {self._found[name]}")
                reasons.append(str(error))
                continue
            self._changed.discard(name)
        if left:
            raise ClusterError(
                f"could not put back all replicas in namespace {self.settings.namespace}: scale "
                f"{', '.join(left)} by hand with kubectl; {reasons[0]}"
            )

    def __enter__(self) -> "KubernetesCluster":
        """The cluster itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the replicas back, if the settings say so."""
        if self.settings.restore:
            self.restore()

    def _begin(self) -> tuple[tuple[NodeView, ...], dict[str, int]]:
        """Checks that an episode can be played; returns the nodes, and the replicas to put back."""
        found = {}
        for name in self.settings.deployments:
            try:
                deployment = self.api.deployment(name)
                self.api.check_scale(name)
            except DeploymentGoneError as error:
                raise InputError(str(error)) from error
            replicas = deployment.spec.replicas if deployment.spec else None
            found[name] = 1 if replicas is None else replicas
        nodes = view_of(self.api.nodes(), (), ()).nodes
        if not nodes:
            chosen = f" with labels {self.settings.node_selector}" if self.settings.node_selector else ""
            raise InputError(f"{self.api.server} has no nodes{chosen}; name other labels in node_selector")
        return nodes, found

    def _ways(self) -> Array:
        """Round trips, ``1 x U x N``."""
        regions = self.settings.regions
        if not regions:
            return np.zeros((1, 1, len(self._nodes)))
        for region, ways in regions.items():
            if differ := sorted(set(ways) ^ set(self.node_names)):
                raise InputError(
                    f"region {region} and the cluster differ in node {differ[0]}; give the round trip to "
                    f"each of {', '.join(self.node_names)}"
                )
        return np.array([[[ways[name] for name in self.node_names] for ways in regions.values()]])

    def _replicas(self, desired: NDArray[np.integer] | Array, share: Array | None) -> dict[str, int]:
        """What to ask for, by deployment, of those that are there."""
        if self.done:
            raise InputError("the episode is over; begin another")
        if share is not None:
            raise InputError(
                "a real cluster takes no shares of traffic; use a policy that scales, or the simulator"
            )
        names, low, high = self.settings.deployments, self.settings.min_replicas, self.settings.max_replicas
        values = np.asarray(desired, dtype=np.float64)
        if values.shape != (1, len(names)) or not np.isfinite(values).all():
            raise InputError(
                f"replicas must be 1 x {len(names)} finite numbers, not {np.asarray(desired).tolist()}"
            )
        clipped = np.clip(np.rint(values[0]), low, high)
        there = self._snapshot.application[0] > 0
        return {name: int(n) for name, n, is_there in zip(names, clipped, there, strict=True) if is_there}

    def _fail(self, message: str) -> None:
        failed = FailedStep(self.step_number, message)
        # What is gone is noticed twice in a step: when it is scaled and when it is looked at.
        if failed not in self.failed_steps:
            logger.warning("step %d: %s", failed.step, message)
            self.failed_steps.append(failed)

    def _see(self) -> ClusterView:
        """The cluster as it is, with the nodes that the episode began with."""
        deployments: list[object] = []
        for name in self.settings.deployments:
            try:
                deployments.append(self.api.deployment(name))
            except DeploymentGoneError as error:
                deployments.append(None)
                self._fail(str(error))
        view = view_of(self.api.nodes(), self.api.pods(), deployments)
        now = {node.name: node for node in view.nodes}
        return replace(view, nodes=tuple(now.get(node.name, replace(node, up=False)) for node in self._nodes))

    def _look(self) -> tuple[Snapshot, Figures]:
        view = self._see()
        if not any(view.deployments):
            raise ClusterError(
                f"none of the listed deployments is left in namespace {self.settings.namespace} of "
                f"{self.api.server}; create them again"
            )
        figures = self._metrics.read(view, self.settings)
        figures.check(len(view.deployments), len(view.nodes), self._round_trip.shape[1])
        return snapshot_of(view, figures, self.settings, self.step_number, self._round_trip), figures


def snapshot_of(
    view: ClusterView, figures: Figures, settings: ClusterSettings, step: int, round_trip: Array
) -> Snapshot:
    """A real cluster in the arrays of a simulated one; a deployment that is gone is padding.

    Args:
        view: what is there.
        figures: what was measured.
        settings: what counts.
        step: control steps done.
        round_trip: seconds, ``1 x U x N``.
    """
    there: Array = np.array([[float(found is not None) for found in view.deployments]])
    up: Array = np.array([[float(node.up) for node in view.nodes]])

    def counted(count: Callable[..., int]) -> Array:
        return np.array([[0.0 if d is None else float(count(d)) for d in view.deployments]])

    room = np.array([[node.cpu, node.memory] for node in view.nodes])
    reserved = ratio(np.array([view.reserved(node.name) for node in view.nodes]), room)
    request_rate = figures.request_rate * there
    regions = round_trip.shape[1]
    evenly = np.full((1, regions), request_rate.sum() / regions)
    serving = [
        [sum(pod.node == node.name for pod in (d.ready if d else ())) for node in view.nodes]
        for d in view.deployments
    ]
    return Snapshot(
        step=np.array([float(step)]),
        horizon=np.array([float(settings.steps)]),
        application=there,
        desired=counted(lambda d: d.desired),
        ready=counted(lambda d: len(d.ready)),
        starting=counted(lambda d: d.starting),
        pending=counted(lambda d: d.pending),
        min_replicas=settings.min_replicas * there,
        max_replicas=settings.max_replicas * there,
        request_rate=request_rate,
        cpu_usage=figures.cpu_usage * there,
        memory_usage=figures.memory_usage * there,
        latency=figures.latency * there,
        refused=figures.refused * there,
        waiting=figures.waiting * there,
        node=up,
        node_cpu_reserved=reserved[:, 0] * up,
        node_memory_reserved=reserved[:, 1] * up,
        node_cpu=figures.node_cpu * up,
        node_memory=figures.node_memory * up,
        node_received=figures.node_received * up,
        node_sent=figures.node_sent * up,
        node_latency=figures.node_latency * up,
        serving=np.array([serving], dtype=np.float64),
        region_rate=evenly if figures.region_rate is None else figures.region_rate[None],
        round_trip=round_trip,
        threshold=np.array([settings.threshold]),
    )
