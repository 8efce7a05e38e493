"""What observations of a cluster do not show: facts that a policy may be told while it trains.

A policy told them learns at once what to do for whom; adapting then has to find out only which cluster it is
at, since the facts move the vector that stands for the task (privileged training; Kumar 2021).
"""

import math

from innerloop.rl.families import LEAST_WEIGHT, Family, Span
from innerloop.rl.simulator.scenario import Scenario

FACTS = 4
"""How many there are: the weight of latency, that of a replica, the start-up delay, the saturation."""


def facts_of(scenario: Scenario, family: Family) -> tuple[float, ...]:
    """The facts of a member, each between -1 and 1 over the family; 0 where all members are alike.

    The reward's weights are placed by their logarithm, as they are drawn; the start-up delay is the mean of
    the applications'.
    """
    startup = sum(application.startup for application in scenario.applications) / len(scenario.applications)
    weights = scenario.reward
    return (
        _place(math.log(max(weights.latency, LEAST_WEIGHT)), _logarithmic(family.latency_weight)),
        _place(math.log(max(weights.replica, LEAST_WEIGHT)), _logarithmic(family.replica_weight)),
        _place(startup, family.startup),
        _place(float(scenario.curve.threshold), family.saturation),
    )


def _place(value: float, span: Span) -> float:
    low, high = span
    return 2 * (value - low) / (high - low) - 1 if high > low else 0.0


def _logarithmic(span: Span) -> Span:
    return math.log(max(span[0], LEAST_WEIGHT)), math.log(max(span[1], LEAST_WEIGHT))
