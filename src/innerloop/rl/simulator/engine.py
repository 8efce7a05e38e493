"""The event clock: E clusters moved together, tick by tick, as arrays.

What users send and what breaks is drawn when an episode begins, from the episode's own seed; after that
nothing is random. So a cluster's course depends on its seed and on what is done to it, and not on which other
clusters are simulated beside it.

A tick: pods whose start-up is over begin to serve; requests come in and are spread over the pods that serve;
every pod works off what it can; what then exceeds the room at a deployment's pods of a node is refused. With
ticks as long as a request takes, a deployment on one node is the queue M/D/c at the ends of the ticks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.simulator.outcome import outcome_of
from innerloop.rl.simulator.padding import Padded, ratio
from innerloop.rl.simulator.pods import Pods
from innerloop.rl.simulator.queues import Queues, Tally
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Array, Outcome, Snapshot


class Simulation:
    """E clusters, an episode each.

    Args:
        scenarios: one a cluster; all with the same steps, interval and tick.
        seeds: one a cluster.
        balanced: place pods where CPU and memory stay even, instead of where most is free.

    Raises:
        InputError: scenarios that cannot be moved by one clock.
    """

    def __init__(self, scenarios: Sequence[Scenario], seeds: Sequence[int], balanced: bool = False) -> None:
        p = self.padded = Padded.of(scenarios)
        first = scenarios[0]
        if any((s.steps, s.interval, s.tick) != (first.steps, first.interval, first.tick) for s in scenarios):
            raise InputError("scenarios simulated together need the same steps, interval and tick")
        if len(seeds) != len(scenarios):
            raise InputError(f"{len(scenarios)} scenarios need as many seeds, not {len(seeds)}")
        self.scenarios = tuple(scenarios)
        self.steps, self.interval, self.ticks, self.tick = (
            first.steps,
            first.interval,
            first.ticks,
            first.tick,
        )
        self._arrivals = np.zeros((self.steps * self.ticks, p.count, p.applications, p.regions))
        self._node_up = np.ones((self.steps, p.count, p.nodes), dtype=bool)
        self._crashes = np.zeros((self.steps, p.count, p.applications), dtype=np.int64)
        for number, (scenario, seed) in enumerate(zip(scenarios, seeds, strict=True)):
            self._draw(number, scenario, seed)
        self.pods = Pods(p, self.interval, self.tick, balanced)
        self.queues = Queues(p, self.tick)
        self.step_number = 0
        self.arrived, self.served, self.refused = (np.zeros((p.count, p.applications)) for _ in range(3))
        """Requests since the beginning, ``E x D``; what came is served, refused or in hand."""
        self._snapshot = self._look(Tally.zero(p))

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.step_number >= self.steps

    @property
    def in_hand(self) -> Array:
        """Requests that came and are neither served nor refused, ``E x D``."""
        waiting: Array = self.queues.backlog.sum(2)
        return waiting

    def snapshot(self) -> Snapshot:
        """What can be seen now."""
        return self._snapshot

    def step(self, desired: NDArray[np.integer] | Array, share: Array | None = None) -> Outcome:
        """Moves all clusters by one control step.

        Args:
            desired: replicas, ``E x D``; rounded and clipped to what each application allows.
            share: how each region's requests are spread over nodes, ``E x U x N``, not negative; nodes
                without a pod that serves get none. Without it every serving pod gets as much as any other.

        Raises:
            InputError: the episode is over.
        """
        if self.done:
            raise InputError("the episode is over; begin another")
        p, pods, queues, tally = self.padded, self.pods, self.queues, Tally.zero(self.padded)
        pods.begin_step(self.step_number)
        kept = pods.fail(self._node_up[self.step_number], self._crashes[self.step_number])
        dropped = queues.lose(kept)
        kept = pods.scale(np.clip(np.rint(desired), p.min_replicas, p.max_replicas))
        dropped += queues.hand_over(kept, pods.ready)
        tally.refused += dropped
        begin = self.step_number * self.ticks
        queues.prepare(pods.ready, share)
        for tick in range(self.ticks):
            if pods.start(tick):
                queues.prepare(pods.ready, share)
            queues.run(self._arrivals[begin + tick], tally)
        self.step_number += 1
        self.arrived += tally.arrived
        self.served += tally.served.sum(2)
        self.refused += tally.refused
        self._snapshot = self._look(tally)
        return outcome_of(self._snapshot, p.reward, tally.arrived, tally.violations, tally.refused)

    def _draw(self, number: int, scenario: Scenario, seed: int) -> None:
        """Draws what users send and what breaks."""
        generator = np.random.default_rng(derive_seed(seed, "episode"))
        for d, load in enumerate(scenario.loads):
            drawn = load.draw(self.steps * self.ticks, self.tick, generator)
            self._arrivals[:, number, d, : drawn.shape[1]] = drawn
        failures, hours = scenario.failures, self.interval / 3600
        repair = max(1, int(np.ceil(failures.node_repair / self.interval)))
        for n in range(len(scenario.nodes)):
            for step in np.flatnonzero(generator.random(self.steps) < failures.node_rate * hours):
                self._node_up[step : step + repair, number, n] = False
        shape = (self.steps, len(scenario.applications))
        self._crashes[:, number, : shape[1]] = generator.poisson(failures.pod_rate * hours, shape)

    def _look(self, tally: Tally) -> Snapshot:
        p, pods, seconds = self.padded, self.pods, self.interval
        serving = pods.ready.sum(2)
        work = tally.served * p.request_cpu[:, :, None]
        used_memory = tally.memory * p.memory_request[:, :, None]
        received = ratio((tally.served * p.request_traffic[:, :, None]).sum(1), p.node_network * seconds)
        pod_seconds = tally.pods.sum(2)
        full = np.full(p.count, float(self.steps))
        return Snapshot(
            step=np.full(p.count, float(self.step_number)),
            horizon=full,
            application=p.application,
            desired=pods.total,
            ready=serving,
            starting=pods.starting.sum(2),
            pending=pods.pending.copy(),
            min_replicas=p.min_replicas,
            max_replicas=p.max_replicas,
            request_rate=tally.arrived / seconds,
            cpu_usage=ratio(work.sum(2), pod_seconds * p.cpu_request),
            memory_usage=ratio(tally.memory.sum(2), pod_seconds),
            latency=ratio(tally.latency, tally.arrived),
            refused=np.minimum(ratio(tally.refused, tally.arrived), 1.0),
            waiting=ratio(self.in_hand, serving * p.capacity),
            node=p.node * pods.up,
            node_cpu_reserved=ratio(pods.reserved(p.cpu_request), p.node_cpu),
            node_memory_reserved=ratio(pods.reserved(p.memory_request), p.node_memory),
            node_cpu=self._node_cpu(tally),
            node_memory=ratio(used_memory.sum(1), p.node_memory * seconds),
            node_received=received,
            node_sent=received,
            node_latency=ratio(tally.node_latency.sum(1), tally.served.sum(1)),
            serving=pods.ready.copy(),
            region_rate=tally.region / seconds,
            round_trip=p.round_trip,
            threshold=p.threshold,
        )

    def _node_cpu(self, tally: Tally) -> Array:
        work = (tally.served * self.padded.request_cpu[:, :, None]).sum(1)
        return ratio(work, self.padded.node_cpu * self.interval)
