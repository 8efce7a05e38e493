"""A snapshot as one vector of fixed length, and back into its parts.

Clusters smaller than the layout are padded; the first feature of an application and of a node says whether it
is there. A policy that treats applications alike and nodes alike therefore works for every layout.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.snapshot import Array, Snapshot

Observations = NDArray[np.float32]
HIGHEST = 10.0
"""No feature is larger; none is negative below minus this."""

APPLICATION_FEATURES = 13
NODE_FEATURES = 9
COMMON_FEATURES = 2
USUAL_RATE = 100.0
"""Requests a second that stand for 1, on a logarithmic scale."""

T = TypeVar("T")


@dataclass(frozen=True)
class Parts(Generic[T]):
    """An observation's parts; arrays or tensors with any leading dimensions.

    Args:
        applications: ``... x D x APPLICATION_FEATURES``.
        nodes: ``... x N x NODE_FEATURES``.
        regions: each region's share of the requests, ``... x U``.
        ways: round trip over the threshold, ``... x U x N``.
        common: ``... x COMMON_FEATURES``.
    """

    applications: T
    nodes: T
    regions: T
    ways: T
    common: T


@dataclass(frozen=True)
class Layout:
    """How many of each there is room for.

    Args:
        applications: D.
        nodes: N.
        regions: U.
    """

    applications: int
    nodes: int
    regions: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in each part, in their order."""
        return (
            self.applications * APPLICATION_FEATURES,
            self.nodes * NODE_FEATURES,
            self.regions,
            self.regions * self.nodes,
            COMMON_FEATURES,
        )

    @property
    def size(self) -> int:
        """Numbers in an observation."""
        return sum(self.sizes)

    def fits(self, applications: int, nodes: int, regions: int) -> bool:
        """Whether so many have room."""
        return applications <= self.applications and nodes <= self.nodes and regions <= self.regions

    def observe(self, snapshot: Snapshot, previous: Snapshot | None = None) -> Observations:
        """The observations of E clusters, ``E x size``.

        Args:
            snapshot: the clusters now.
            previous: one control step before, for how the load changes; none at the beginning.

        Raises:
            InputError: a cluster is larger than the layout.
        """
        s = snapshot
        if not self.fits(s.application.shape[1], s.node.shape[1], s.region_rate.shape[1]):
            raise InputError(
                f"a cluster of {s.application.shape[1]} applications, {s.node.shape[1]} nodes and "
                f"{s.region_rate.shape[1]} regions does not fit the layout of {self.applications}, "
                f"{self.nodes} and {self.regions}; enlarge the layout"
            )
        before = s if previous is None else previous
        limit = s.threshold[:, None]
        applications = np.stack(
            [
                s.application,
                ratio(s.desired, s.max_replicas),
                ratio(s.ready, s.max_replicas),
                ratio(s.starting, s.max_replicas),
                ratio(s.pending, s.max_replicas),
                ratio(s.min_replicas, s.max_replicas),
                _rate(s.request_rate),
                _rate(s.request_rate) - _rate(before.request_rate),
                s.cpu_usage,
                s.memory_usage,
                ratio(s.latency, limit),
                s.refused,
                s.waiting,
            ],
            axis=-1,
        )
        serving = s.serving.sum(1)
        nodes = np.stack(
            [
                s.node,
                ratio(serving, serving.sum(1, keepdims=True)),
                s.node_cpu_reserved,
                s.node_memory_reserved,
                s.node_cpu,
                s.node_memory,
                s.node_received,
                s.node_sent,
                ratio(s.node_latency, limit),
            ],
            axis=-1,
        )
        rates = s.region_rate
        parts = (
            self._padded(applications * s.application[..., None], self.applications, 1),
            self._padded(nodes * s.node[..., None], self.nodes, 1),
            self._padded(ratio(rates, rates.sum(1, keepdims=True)), self.regions, 1),
            self._padded(self._padded(ratio(s.round_trip, limit[..., None]), self.regions, 1), self.nodes, 2),
            np.stack([ratio(s.step, s.horizon), _rate(rates.sum(1))], axis=-1),
        )
        flat = np.concatenate([part.reshape(len(s), -1) for part in parts], axis=1)
        clipped: Observations = np.clip(flat, -HIGHEST, HIGHEST).astype(np.float32)
        return clipped

    def split(self, observations: T) -> Parts[T]:
        """The parts of arrays or tensors ``... x size``."""
        o, leading, pieces, start = observations, observations.shape[:-1], [], 0  # type: ignore[attr-defined]
        for size in self.sizes:
            pieces.append(o[..., start : start + size])  # type: ignore[index]
            start += size
        return Parts(
            applications=pieces[0].reshape(*leading, self.applications, APPLICATION_FEATURES),
            nodes=pieces[1].reshape(*leading, self.nodes, NODE_FEATURES),
            regions=pieces[2],
            ways=pieces[3].reshape(*leading, self.regions, self.nodes),
            common=pieces[4],
        )

    @staticmethod
    def _padded(values: Array, count: int, axis: int) -> Array:
        widths = [(0, 0)] * values.ndim
        widths[axis] = (0, count - values.shape[axis])
        padded: Array = np.asarray(np.pad(values, widths))
        return padded


def _rate(requests: Array) -> Array:
    rate: Array = np.log1p(requests) / np.log1p(USUAL_RATE)
    return rate
