"""Gymnasium's interface around simulated and real clusters."""

from innerloop.rl.envs.single import BalancingEnv, ClusterEnv, ScalingEnv
from innerloop.rl.envs.vector import ClusterVectorEnv

__all__ = ["BalancingEnv", "ClusterEnv", "ClusterVectorEnv", "ScalingEnv"]
