"""What a policy may do: change replicas, or spread requests. Its actions as replicas and shares."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from innerloop.rl.observation import Layout
from innerloop.rl.simulator.snapshot import Array, Snapshot


class Control(ABC):
    """A kind of action."""

    @abstractmethod
    def space(self, layout: Layout) -> spaces.Space[Any]:
        """The actions on one cluster."""

    @abstractmethod
    def apply(self, actions: NDArray[Any], snapshot: Snapshot, layout: Layout) -> tuple[Array, Array | None]:
        """What to tell a simulation of E clusters.

        Args:
            actions: of the space, ``E x ...``.
            snapshot: the clusters now.
            layout: that the space is for.

        Returns:
            Replicas, ``E x D``, and the shares of requests, ``E x U x N``, or none.
        """


@dataclass(frozen=True)
class ScalingControl(Control):
    """For every application the change of its replicas, from ``-most`` to ``most``.

    Args:
        most: replicas added or removed in a step at most.
    """

    most: int = 3

    @property
    def choices(self) -> int:
        """Changes to choose from."""
        return 2 * self.most + 1

    def space(self, layout: Layout) -> spaces.MultiDiscrete:
        """One choice an application; ``most`` is no change."""
        return spaces.MultiDiscrete([self.choices] * layout.applications)

    def apply(
        self,
        actions: NDArray[Any],
        snapshot: Snapshot,
        layout: Layout,  # noqa: ARG002 - choices stand in the order of applications
    ) -> tuple[Array, Array | None]:
        """See :meth:`Control.apply`."""
        change = actions[:, : snapshot.desired.shape[1]] - self.most
        wanted = np.clip(snapshot.desired + change, snapshot.min_replicas, snapshot.max_replicas)
        return wanted * snapshot.application, None


@dataclass(frozen=True)
class BalancingControl(Control):
    """For every region a score of each node; shares are the softmax of ``sharpness`` times the scores.

    Args:
        sharpness: how much a score of 1 weighs.
    """

    sharpness: float = 4.0

    def space(self, layout: Layout) -> spaces.Box:
        """Scores between -1 and 1, all of region 0's first."""
        return spaces.Box(-1.0, 1.0, (layout.regions * layout.nodes,), np.float32)

    def apply(self, actions: NDArray[Any], snapshot: Snapshot, layout: Layout) -> tuple[Array, Array | None]:
        """See :meth:`Control.apply`."""
        _, regions, nodes = snapshot.round_trip.shape
        scores = actions.reshape(-1, layout.regions, layout.nodes)[:, :regions, :nodes]
        # A policy draws scores from normal distributions, which know no bounds.
        weights = np.exp(self.sharpness * np.clip(scores, -1, 1))
        return snapshot.desired, weights * snapshot.node[:, None, :]
