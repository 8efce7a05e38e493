"""Pods: how many of each application are on each node, which serve, which start, which found no place."""

import numpy as np
from numpy.typing import NDArray

from innerloop.rl.simulator.padding import Padded, ratio
from innerloop.rl.simulator.snapshot import Array


class Pods:
    """The pods of E clusters.

    Args:
        padded: the clusters.
        interval: seconds of a control step.
        tick: seconds of a tick.
        balanced: place pods where the shares of CPU and memory stay even, instead of where most is free.
    """

    def __init__(self, padded: Padded, interval: float, tick: float, balanced: bool) -> None:
        p = padded
        self._padded, self._interval, self._tick, self._balanced = p, interval, tick, balanced
        self.up = p.node.astype(bool)
        """Which nodes take pods, ``E x N``."""
        self.ready = np.zeros((p.count, p.applications, p.nodes))
        """Pods that serve, ``E x D x N``."""
        self.pending = p.replicas.copy()
        """Pods without a place, ``E x D``."""
        # Pods that start are kept by the step they were placed in, which decides when they begin to serve.
        cohorts = int(p.startup.max() // interval) + 2
        self._starting = np.zeros((cohorts, *self.ready.shape))
        self._placed_at = np.zeros(cohorts)
        self._due = np.zeros((cohorts, p.count, p.applications), dtype=np.int64)
        self._place(self.ready)

    @property
    def starting(self) -> Array:
        """Pods that were placed and do not serve yet, ``E x D x N``."""
        starting: Array = self._starting.sum(0)
        return starting

    @property
    def total(self) -> Array:
        """All pods, with or without a place, ``E x D``."""
        placed: Array = (self.ready + self.starting).sum(2)
        return placed + self.pending

    def reserved(self, request: Array) -> Array:
        """What pods reserve of a resource on each node, ``E x N``; a pod reserves ``request``, ``E x D``."""
        reserved: Array = ((self.ready + self.starting) * request[:, :, None]).sum(1)
        return reserved

    def begin_step(self, step: int) -> None:
        """Opens the step's cohort and works out at which ticks the waiting ones are due."""
        self._now = step % len(self._starting)
        self._placed_at[self._now] = step

    def fail(self, up: NDArray[np.bool_], crashes: NDArray[np.int64]) -> Array:
        """Takes nodes down and restarts crashed pods.

        Args:
            up: the nodes that are up in this step, ``E x N``.
            crashes: pods that crash, ``E x D``.

        Returns:
            The share of the pods that went on serving, ``E x D x N``.
        """
        before = self.ready.copy()
        self.up = up & self._padded.node.astype(bool)
        down = ~self.up[:, None, :]
        if down.any():
            self.pending += ((self.ready + self.starting) * down).sum(2)
            self.ready[np.broadcast_to(down, self.ready.shape)] = 0
            self._starting[:, np.broadcast_to(down, self.ready.shape)] = 0
        for e, d in np.argwhere(crashes > 0):
            n = self.ready[e, d].argmax()
            crashed = min(float(crashes[e, d]), self.ready[e, d, n])
            self.ready[e, d, n] -= crashed
            self._starting[self._now, e, d, n] += crashed
        return np.where(before > 0, ratio(self.ready, before), 1.0)

    def scale(self, desired: Array) -> Array:
        """Makes the pods as many as desired, ``E x D``: takes away those that serve least, or places more.

        Returns:
            The share of the pods that went on serving, ``E x D x N``.
        """
        before = self.ready.copy()
        change = desired - self.total
        self.pending += np.maximum(change, 0)
        surplus = np.maximum(-change, 0)
        waiting = np.minimum(surplus, self.pending)
        self.pending -= waiting
        surplus -= waiting
        if surplus.any():
            for back in range(len(self._starting)):  # the youngest first
                surplus = _take(self._starting[(self._now - back) % len(self._starting)], surplus)
            _take(self.ready, surplus)
        self._place(self._starting[self._now])
        self._plan()
        return np.where(before > 0, ratio(self.ready, before), 1.0)

    def start(self, tick: int) -> bool:
        """Lets the pods serve whose start-up is over at a tick of this step; says whether there were any."""
        due = self._due == tick
        if not due.any():
            return False
        moved = self._starting * due[..., None]
        self.ready += moved.sum(0)
        self._starting -= moved
        return bool(moved.any())

    def _plan(self) -> None:
        step = self._placed_at[self._now]
        left = (self._placed_at - step)[:, None, None] * self._interval + self._padded.startup
        self._due = np.ceil(left / self._tick - 1e-9).astype(np.int64)

    def _place(self, into: Array) -> None:
        """Gives pending pods a place, one after another, as the scheduler would."""
        p = self._padded
        waiting = np.flatnonzero(self.pending.any(1))
        if not waiting.size:
            return
        cpu, memory = self.reserved(p.cpu_request)[waiting], self.reserved(p.memory_request)[waiting]
        node_cpu, node_memory, up = p.node_cpu[waiting], p.node_memory[waiting], self.up[waiting]
        for d in range(p.applications):
            asks_cpu, asks_memory = p.cpu_request[waiting, d, None], p.memory_request[waiting, d, None]
            while True:
                cpu_after, memory_after = cpu + asks_cpu, memory + asks_memory
                fits = up & (cpu_after <= node_cpu + 1e-9) & (memory_after <= node_memory + 1e-9)
                going = (self.pending[waiting, d] > 0) & fits.any(1)
                if not going.any():
                    break
                rows = np.flatnonzero(going)
                score = self._score(ratio(cpu_after, node_cpu), ratio(memory_after, node_memory))
                chosen = np.where(fits, score, -np.inf).argmax(1)[rows]
                into[waiting[rows], d, chosen] += 1
                self.pending[waiting[rows], d] -= 1
                cpu[rows, chosen] += asks_cpu[rows, 0]
                memory[rows, chosen] += asks_memory[rows, 0]

    def _score(self, cpu: Array, memory: Array) -> Array:
        """The scheduler's score of nodes by the shares that would be reserved: 100 at best."""
        return 100 * (1 - np.abs(cpu - memory)) if self._balanced else 100 * (1 - (cpu + memory) / 2)


def _take(pods: Array, surplus: Array) -> Array:
    """Takes pods away, ``E x D``, each from the node that has most of them; returns what is left to take."""
    while True:
        going = (surplus > 0) & (pods.sum(2) > 0)
        if not going.any():
            return surplus
        e, d = np.nonzero(going)
        pods[e, d, pods[e, d].argmax(1)] -= 1
        surplus = surplus - going
