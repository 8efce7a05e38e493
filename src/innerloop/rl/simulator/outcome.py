"""What a control step cost, from what was seen at its end: the same of simulated and of real clusters."""

import numpy as np

from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.scenario import RewardWeights
from innerloop.rl.simulator.snapshot import Array, Outcome, Snapshot


def outcome_of(
    snapshot: Snapshot, weights: RewardWeights, arrived: Array, violations: Array, refused: Array
) -> Outcome:
    """The costs of the step that led to a snapshot, and the reward: minus their weighted sum.

    reward = −(w_latency · latency + w_replica · replicas + w_variance · variance + w_misfit · misfit)

    Args:
        snapshot: E clusters at the end of the step.
        weights: numbers, or arrays ``E``.
        arrived: requests that came during the step, ``E x D``.
        violations: how many of them were above the threshold or refused at once, ``E x D``.
        refused: how many requests were refused, these or earlier ones, ``E x D``.
    """
    s = snapshot
    requests = arrived.sum(1)
    latency = ratio((s.latency * arrived).sum(1), requests)
    replicas = ratio(s.desired.sum(1), s.application.sum(1))
    nodes = s.node.sum(1)
    mean = ratio((s.node_cpu * s.node).sum(1), nodes)
    variance = ratio((s.node * (s.node_cpu - mean[:, None]) ** 2).sum(1), nodes)
    misfit = (s.pending.sum(1) > 0).astype(np.float64)
    reward = -(
        weights.latency * latency
        + weights.replica * replicas
        + weights.variance * variance
        + weights.misfit * misfit
    )
    return Outcome(
        reward=reward,
        latency=latency,
        replicas=replicas,
        variance=variance,
        misfit=misfit,
        requests=requests,
        violations=violations.sum(1),
        refused=refused.sum(1),
    )
