"""Environment steps a second of the simulated clusters: many moved together against one after another.

Clusters of four nodes, episodes of 40 control steps of 15 ticks, replicas changed at random at every step,
and nodes and pods that fail. Both sides do the same, drawing of the episodes included, in this one thread:
ours moves 256 clusters as one simulation; the peer is the loop that takes one cluster to its end, then the
next. That both earn the same rewards is checked. Run: ``python benchmarks/bench_simulator.py``.
"""

import statistics
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from innerloop.rl.simulator import Application, Failures, Load, Node, Scenario, Simulation
from measure import Ratio

ROUNDS, CLUSTERS, ONE_BY_ONE = 5, 256, 8
BAR = 20_000
"""Steps a second on one core that this must beat."""


@dataclass(frozen=True)
class Work:
    """Clusters of four nodes that run this many applications."""

    applications: int

    def scenario(self) -> Scenario:
        """One of them; all are the same but for their seeds."""
        return Scenario(
            name="four nodes",
            nodes=(Node(2000, 4096),) * 4,
            applications=(Application(replicas=4),) * self.applications,
            loads=(Load("diurnal", 80.0, amplitude=0.5),) * self.applications,
            round_trip=((0.01, 0.02, 0.03, 0.04),),
            failures=Failures(node_rate=0.5, pod_rate=0.5),
        )

    def desired(self, steps: int) -> NDArray[np.int64]:
        """Random replicas, always the same, ``steps x CLUSTERS x applications``."""
        return np.random.default_rng(0).integers(1, 9, (steps, CLUSTERS, self.applications))


@dataclass(frozen=True)
class Run:
    """What a side found: seconds an environment step, and the clusters' rewards, ``clusters x steps``."""

    seconds: float
    rewards: NDArray[np.float64]


def together(work: Work) -> Run:
    """All clusters in one simulation."""
    scenario = work.scenario()
    desired = work.desired(scenario.steps)
    start = time.process_time()
    simulation = Simulation([scenario] * CLUSTERS, range(CLUSTERS))
    rewards = [simulation.step(now).reward for now in desired]
    return Run((time.process_time() - start) / (CLUSTERS * scenario.steps), np.stack(rewards, 1))


def one_by_one(work: Work) -> Run:
    """The first clusters, each in a simulation of its own."""
    scenario = work.scenario()
    desired = work.desired(scenario.steps)
    rewards = []
    start = time.process_time()
    for number in range(ONE_BY_ONE):
        simulation = Simulation([scenario], [number])
        rewards.append([float(simulation.step(now[number : number + 1]).reward[0]) for now in desired])
    return Run((time.process_time() - start) / (ONE_BY_ONE * scenario.steps), np.array(rewards))


def main() -> None:
    """Prints the table."""
    table = Table(
        "applications",
        "steps a second, median (range)",
        f"over the bar of {BAR:,}",
        "time a step, together / one by one (range)",
        title=f"{CLUSTERS} simulated clusters of four nodes, one thread",
    )
    for work in (Work(1), Work(2)):
        rates, ratios = [], []
        together(work), one_by_one(work)
        for _ in range(ROUNDS):
            mine, peer = together(work), one_by_one(work)
            if not np.allclose(mine.rewards[:ONE_BY_ONE], peer.rewards, rtol=1e-9):
                raise SystemExit(f"{work.applications} applications: the rewards differ")
            rates.append(1 / mine.seconds)
            ratios.append(mine.seconds / peer.seconds)
        median = statistics.median(rates)
        ratio = Ratio(statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(
            str(work.applications),
            f"{median:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
            f"{median / BAR:.1f} times",
            f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
