"""What observations of a cluster do not show: facts that a policy may be told while it trains.

A policy told them learns at once what to do for whom; adapting then only has to find out at which cluster it
is, since facts move the vector that stands for the task (privileged training; Kumar 2021).

The facts are what latency and replicas cost, in the units that observations have: a whole allowed latency,
and all the replicas that there may be.
"""

import math

from innerloop.rl.families import LEAST_WEIGHT, Family, Span
from innerloop.rl.simulator.scenario import Scenario

FACTS = 2
"""How many there are: what latency costs, what replicas cost."""

FARTHEST = 1.5
"""The least and the greatest of a family's members are told as minus and plus this."""


def facts_of(scenario: Scenario, family: Family) -> tuple[float, ...]:
    """The facts of a member: logarithms, evenly between their family's ends; 0 where all are alike."""
    replicas = [application.max_replicas for application in scenario.applications]
    latency = float(scenario.reward.latency) * scenario.threshold
    replica = float(scenario.reward.replica) * sum(replicas) / len(replicas)
    return (
        _place(latency, _product(family.latency_weight, family.latency_threshold)),
        _place(replica, _product(family.replica_weight, family.max_pods)),
    )


def _product(one: Span, other: Span) -> Span:
    return one[0] * other[0], one[1] * other[1]


def _place(value: float, span: Span) -> float:
    """Where the logarithm of a value lies between those of a span's ends, from -FARTHEST to FARTHEST."""
    low, high, here = (math.log(max(number, LEAST_WEIGHT)) for number in (*span, value))
    return FARTHEST * (2 * (here - low) / (high - low) - 1) if high > low else 0.0
