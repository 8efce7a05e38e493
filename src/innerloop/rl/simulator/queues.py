"""Requests in hand at the pods, and what a tick does to them."""

from dataclasses import dataclass

import numpy as np

from innerloop.rl.simulator.padding import Padded, ratio
from innerloop.rl.simulator.snapshot import Array


@dataclass
class Tally:
    """What a control step adds up over its ticks."""

    arrived: Array
    served: Array
    refused: Array
    latency: Array
    violations: Array
    pods: Array
    memory: Array
    node_latency: Array
    region: Array

    @staticmethod
    def zero(padded: Padded) -> "Tally":
        """Nothing yet: ``E x D``, with ``x N`` where a node counts, and ``E x U`` for the regions."""
        pair = (padded.count, padded.applications)
        cells = (*pair, padded.nodes)
        return Tally(
            arrived=np.zeros(pair),
            served=np.zeros(cells),
            refused=np.zeros(pair),
            latency=np.zeros(pair),
            violations=np.zeros(pair),
            pods=np.zeros(cells),
            memory=np.zeros(cells),
            node_latency=np.zeros(cells),
            region=np.zeros((padded.count, padded.regions)),
        )


class Queues:
    """Requests in hand, by application and node.

    Args:
        padded: the clusters.
        tick: seconds.
    """

    def __init__(self, padded: Padded, tick: float) -> None:
        self._padded, self._tick = padded, tick
        shape = (padded.count, padded.applications, padded.nodes)
        self.backlog = np.zeros(shape)
        """Requests that wait, ``E x D x N``."""
        self._service = ratio(padded.application, padded.capacity)[:, :, None]
        self._round_trip = padded.round_trip[:, None]
        self._threshold, self._timeout = (
            padded.threshold[:, None, None, None],
            padded.timeout[:, None, None, None],
        )

    def lose(self, kept: Array) -> Array:
        """Drops what failed pods had in hand, all but the share ``kept``; returns how much, ``E x D``."""
        lost = self.backlog * (1 - kept)
        self.backlog = self.backlog - lost
        dropped: Array = lost.sum(2)
        return dropped

    def hand_over(self, kept: Array, ready: Array) -> Array:
        """Gives what removed pods had in hand to those that serve; returns what none took, ``E x D``."""
        released = (self.backlog * (1 - kept)).sum(2)
        self.backlog = self.backlog * kept
        serving = ready.sum(2)
        self.backlog += ready * ratio(released, serving)[:, :, None]
        return np.where(serving > 0, 0.0, released)

    def prepare(self, ready: Array, share: Array | None) -> None:
        """Takes up which pods serve, and how requests are spread, until the next change.

        Args:
            ready: pods that serve, ``E x D x N``.
            share: wanted shares of each region's requests, ``E x U x N``; none: as many for each pod.
        """
        capacity = self._padded.capacity[:, :, None]
        self._ready = ready
        self._rate = ready * capacity
        self._most = self._rate * self._tick
        self._room = self._rate * self._padded.room[:, :, None]
        if share is None:
            wanted = np.broadcast_to(
                ready[:, :, None, :], (*ready.shape[:2], self._padded.regions, ready.shape[2])
            )
        else:
            wanted = share[:, None] * (ready > 0)[:, :, None, :]
            # A region that wants only nodes without pods takes what there is.
            wanted = np.where(wanted.sum(3, keepdims=True) > 0, wanted, ready[:, :, None, :])
        self._share = ratio(wanted, wanted.sum(3, keepdims=True))
        self._nowhere = ready.sum(2) == 0
        self._per_rate = ratio(np.ones_like(self._rate), self._rate)
        self._per_most = self._per_rate / self._tick
        reserved = self._padded.memory_request[:, :, None]
        self._memory_base = ratio(self._padded.base_memory[:, :, None] * (ready > 0), reserved)
        self._memory_request = ratio(self._padded.request_memory[:, :, None], reserved * ready)

    def run(self, arrivals: Array, tally: Tally) -> None:
        """One tick.

        Args:
            arrivals: requests, ``E x D x U``.
            tally: what happens is added to it.
        """
        p, tick = self._padded, self._tick
        flow = arrivals[..., None] * self._share
        came = flow.sum(2)
        hand = self.backlog + came
        served = self._through_network(np.minimum(hand, self._most))
        left = hand - served
        backlog = np.minimum(left, self._room)
        refused = left - backlog
        # Who comes in the middle of the tick meets what waits then.
        wait = (self.backlog + backlog) / 2 * self._per_rate
        self.backlog = backlog
        cpu = np.minimum(hand * self._per_most, 1.0)
        memory = np.minimum(self._memory_base + hand * self._memory_request, 1.0)
        latency = self._service + wait + p.curve.delay((cpu + memory) / 2)
        whole = np.minimum(latency[:, :, None, :] + self._round_trip, self._timeout)
        # The last to come are refused first; what came in earlier ticks was judged then.
        turned_away = np.minimum(refused, came)
        let_in = 1 - ratio(turned_away, came)
        seconds = (flow * whole).sum(2) * let_in + turned_away * p.timeout[:, None, None]
        slow = (flow * (whole > self._threshold)).sum(2) * let_in + turned_away
        total = arrivals.sum(2)
        nowhere = total * self._nowhere
        tally.arrived += total
        tally.region += arrivals.sum(1)
        tally.served += served
        tally.refused += refused.sum(2) + nowhere
        tally.latency += seconds.sum(2) + nowhere * p.timeout[:, None]
        tally.violations += slow.sum(2) + nowhere
        tally.pods += self._ready * tick
        tally.memory += memory * self._ready * tick
        tally.node_latency += latency * served

    def _through_network(self, served: Array) -> Array:
        """What the nodes' networks let through of what the pods could serve."""
        each = self._padded.request_traffic[:, :, None]
        traffic = (served * each).sum(1)
        limit = self._padded.node_network * self._tick
        over = traffic > limit
        if not over.any():
            return served
        share = np.divide(limit, traffic, out=np.ones_like(traffic), where=over)
        return np.where(each > 0, served * share[:, None, :], served)
