"""PPO by Stable-Baselines3 on our clusters and our policy.

Its own saving, which pickles, is never used: a round begins with fresh episodes, so weights, the optimizer's
state and the number of rounds done are all there is to go on from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from innerloop.core.sampler import derive_seed
from innerloop.rl.controls import Control
from innerloop.rl.envs.vector import ClusterVectorEnv, ScenarioSource, observation_space
from innerloop.rl.facts import FACTS, facts_of
from innerloop.rl.families import Family, Members
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.policy_gradient import cost_error
from innerloop.settings.kinds import Count, Fraction, NonNegative, Positive


@dataclass(frozen=True)
class PPOSettings:
    """PPO's own settings (Schulman 2017).

    Args:
        clusters: simulated side by side; a round plays one episode on each.
        lr: of Adam, falling to 0 over the run.
        epochs: over a round's steps.
        batch_size: of a gradient step; the largest number up to this is taken that divides a round's steps.
        discount: γ.
        smoothing: λ of the advantages.
        clip: of the probability ratio.
        entropy: weight of the entropy bonus.
        value: weight of the critic's loss.
        reward_scale: what rewards are multiplied with for the critic's sake.
        told: whether the policy is told what observations do not show (:mod:`innerloop.rl.facts`). It acts
            as on an average member where it is not.
    """

    clusters: Count = 64
    lr: Positive = 1e-3
    epochs: Count = 10
    batch_size: Count = 256
    discount: Fraction = 0.95
    smoothing: Fraction = 0.95
    clip: Positive = 0.2
    entropy: NonNegative = 0.005
    value: NonNegative = 0.5
    reward_scale: Positive = 0.1
    told: bool = False


class _Policy(ActorCriticPolicy):
    """A :class:`ClusterPolicy` behind the interface of Stable-Baselines3."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        use_sde: bool,
        net: Callable[[], ClusterPolicy],
    ) -> None:
        self._given = net  # a function, since PyTorch takes no module before its own constructor has run
        super().__init__(observation_space, action_space, lr_schedule, use_sde=use_sde)

    def _build(self, lr_schedule: Schedule) -> None:
        self.net = self._given()
        self.optimizer = torch.optim.Adam(_acting(self.net), lr=lr_schedule(1), eps=1e-5)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, values ``B x 1`` and log-probabilities ``B``."""
        actions = self._predict(obs, deterministic)
        judged = self.net.judged(obs, actions)
        return actions, judged.value.unsqueeze(-1), judged.log_probability

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        noise = self.net.noise((len(observation),))
        actions: Tensor = self.net(observation, torch.zeros_like(noise) if deterministic else noise)
        return actions

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``B x 1``, log-probabilities ``B`` and entropies ``B``."""
        judged = self.net.judged(obs, actions)
        return judged.value.unsqueeze(-1), judged.log_probability, judged.entropy

    def predict_values(self, obs: Any) -> Tensor:
        """Values, ``B x 1``."""
        return self.net.value(obs).unsqueeze(-1)


class _Clusters(VecEnv):
    """Our vector environment behind the interface of Stable-Baselines3, which resets at once."""

    def __init__(self, env: ClusterVectorEnv, reward_scale: float, family: Family | None) -> None:
        self._env, self._scale, self._family = env, reward_scale, family
        self._facts = np.zeros((env.num_envs, 0), np.float32)
        self._actions: NDArray[Any] = np.zeros(0)
        self.returns: list[float] = []
        self.after: list[NDArray[np.float32]] = []
        self.rewards: list[NDArray[Any]] = []
        self._running = np.zeros(env.num_envs)
        told = 0 if family is None else FACTS
        seen = observation_space(env.layout, told)
        super().__init__(env.num_envs, seen, env.single_action_space)

    def seek(self, seed: int, episode: int) -> None:
        """Makes the next reset begin the episodes of this seed and number."""
        self._env.seek(seed, episode)

    def reset(self) -> NDArray[np.float32]:
        """The first observations of the next episodes."""
        self._running[:] = 0
        seen, _ = self._env.reset()
        if self._family is not None:
            scenarios = self._env.simulation.scenarios
            self._facts = np.array([facts_of(s, self._family) for s in scenarios], np.float32)
        return self._with_facts(seen)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps the actions."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Takes them; at the end of the episodes it begins the next ones."""
        seen, rewards, _, over, _ = self._env.step(self._actions)
        self._running += rewards
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        seen = self._with_facts(seen)
        self.after.append(seen)
        self.rewards.append(rewards)
        if over.all():
            infos = [{"terminal_observation": last, "TimeLimit.truncated": True} for last in seen]
            self.returns += self._running.tolist()
            seen = self.reset()
        return seen, (self._scale * rewards).astype(np.float32), over, infos

    def _with_facts(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([seen, self._facts], axis=1)

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environment, for each cluster alike."""
        return [getattr(self._env, attr_name, None)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, *_: Any, **__: Any) -> None:
        """Refused: the clusters share one environment."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *_: Any, **__: Any) -> list[Any]:
        """Refused: the clusters share one environment."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, _wrapper: Any, indices: Any = None) -> list[bool]:
        """No cluster is wrapped."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


class PPOTrainer:
    """Trains a policy round by round; a round is one episode on each of the clusters.

    Args:
        policy: parameters that require no gradient stay as they are, bit for bit.
        source: of scenarios.
        control: what actions are.
        settings: PPO's.
        rounds: in the whole run, over which the learning rate falls to 0; none keeps it as it is.
        seed: of episodes, actions and the order of steps.
    """

    def __init__(
        self,
        policy: ClusterPolicy,
        source: ScenarioSource,
        control: Control,
        settings: PPOSettings,
        rounds: int | None,
        seed: int,
    ) -> None:
        self.policy, self.settings, self.rounds, self.seed = policy, settings, rounds, seed
        self.done = 0
        env = ClusterVectorEnv(source, control, policy.layout, settings.clusters)
        self._clusters = _Clusters(env, settings.reward_scale, _family(source) if settings.told else None)
        self.steps = source.scenario(0).steps
        self._ppo = PPO(
            _Policy,
            self._clusters,
            learning_rate=self._rate(),
            n_steps=self.steps,
            batch_size=_largest_factor(self.steps * settings.clusters, settings.batch_size),
            n_epochs=settings.epochs,
            gamma=settings.discount,
            gae_lambda=settings.smoothing,
            clip_range=settings.clip,
            ent_coef=settings.entropy,
            vf_coef=settings.value,
            policy_kwargs={"net": lambda: policy},
            device="cpu",
            seed=derive_seed(seed, "ppo") % 2**31,
        )
        self._ppo.set_logger(Logger(None, []))

        self.cost_optimizer = torch.optim.Adam(policy.cost.parameters(), lr=COST_RATE)
        """Of the network that says what steps cost."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, with its moments."""
        return self._ppo.policy.optimizer

    def refresh(self) -> None:
        """Takes up which parameters require a gradient now, after a thaw."""
        held = {p for group in self.optimizer.param_groups for p in group["params"]}
        added = [p for p in _acting(self.policy) if p not in held]
        if added:
            self.optimizer.param_groups[0]["params"] += added

    def round(self) -> dict[str, float]:
        """Plays and learns one round; gives its figures."""
        # Everything random in a round follows from its number, so a resumed run goes on as it would have.
        torch.manual_seed(derive_seed(self.seed, "round", self.done))
        np.random.seed(derive_seed(self.seed, "order", self.done) % 2**32)
        self._clusters.seek(derive_seed(self.seed, "episodes"), self.done)
        for kept in (self._clusters.returns, self._clusters.after, self._clusters.rewards):
            kept.clear()
        self._ppo.lr_schedule = self._rate()
        self._ppo._last_obs = None
        self._ppo.learn(self.steps * self.settings.clusters, reset_num_timesteps=True)
        self.done += 1
        cost = self._learn_costs()
        found: dict[str, Any] = self._ppo.logger.name_to_value
        figures = {name: float(found[f"train/{name}"]) for name in FIGURES}
        return {"return": float(np.mean(self._clusters.returns)), **figures, "cost_loss": cost}

    def _learn_costs(self) -> float:
        """One pass over what the round's steps cost; gives the mean error."""
        after = torch.from_numpy(np.concatenate(self._clusters.after))
        rewards = torch.from_numpy(np.concatenate(self._clusters.rewards)).float()
        weights = list(self.policy.cost.parameters())
        learns = all(p.requires_grad for p in weights)
        errors = []
        order, size = torch.randperm(len(rewards)), self.settings.batch_size
        for rows in (order[start : start + size] for start in range(0, len(order), size)):
            error = cost_error(self.policy, after[rows], rewards[rows])
            errors.append(float(error.detach()))
            if learns:
                # The task's vector is learned by acting, not from here.
                for p, gradient in zip(weights, torch.autograd.grad(error, weights), strict=True):
                    p.grad = gradient
                self.cost_optimizer.step()
                self.cost_optimizer.zero_grad()
        return float(np.mean(errors))

    def _rate(self) -> Callable[[float], float]:
        left = 1.0 if self.rounds is None else 1 - self.done / self.rounds
        rate = self.settings.lr * left
        return lambda _: rate


COST_RATE = 1e-3
"""Of learning what steps cost, in each pass over a round."""


def _acting(policy: ClusterPolicy) -> list[torch.nn.Parameter]:
    """What PPO's own loss trains: all that is not frozen, but the network that says what steps cost."""
    apart = set(policy.cost.parameters())
    return [p for p in policy.parameters() if p.requires_grad and p not in apart]


def _family(source: ScenarioSource) -> Family:
    """Whose members the source gives, for the places of their facts."""
    if not isinstance(source, Members):
        raise TypeError(f"{type(source).__name__} gives no members of a family, to tell facts of")
    return source.family


def _largest_factor(steps: int, most: int) -> int:
    """The largest batch, of ``most`` steps or less, of which a round holds a whole number."""
    return next(size for size in range(min(most, steps), 0, -1) if steps % size == 0)


FIGURES = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
"""What a round is told by, from Stable-Baselines3's own log."""
