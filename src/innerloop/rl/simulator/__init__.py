"""The simulated cluster: what it is made of, the load on it, and the event clock that moves it."""

from innerloop.rl.simulator.engine import Simulation
from innerloop.rl.simulator.latency import LatencyCurve
from innerloop.rl.simulator.load import Load
from innerloop.rl.simulator.scenario import Application, Failures, Node, RewardWeights, Scenario

__all__ = [
    "Application",
    "Failures",
    "LatencyCurve",
    "Load",
    "Node",
    "RewardWeights",
    "Scenario",
    "Simulation",
]
