"""Reinforcement learning on Kubernetes: a simulator, scaling policies, transfer and meta-learning.

Importing it registers ``innerloop/KubernetesScaling-v0`` and ``innerloop/LoadBalancing-v0`` with Gymnasium.
"""

import gymnasium as gym

gym.register("innerloop/KubernetesScaling-v0", entry_point="innerloop.rl.envs:ScalingEnv")
gym.register("innerloop/LoadBalancing-v0", entry_point="innerloop.rl.envs:BalancingEnv")
