"""Policy gradients as losses that the core can differentiate once and twice.

The value of each loss is minus the mean reward of a step, so the core's figures of a task before and after
adaptation are rewards. Its first derivative is the policy gradient; its second keeps the terms that come from
the policy having drawn the data, which plain log-likelihood surrogates lose (Foerster 2018; Rothfuss 2019).
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from innerloop.core.params import Params
from innerloop.rl.rollout import Played, Trajectories

Surrogate = Literal["likelihood_ratio", "dice"]


@runtime_checkable
class Policy(Protocol):
    """What the loss needs of a policy."""

    def log_probability(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The logarithm of the density of actions, ``B x T``."""

    def value(self, observations: Tensor) -> Tensor:
        """What the critic expects from here on, ``B x T``."""

    def entropy(self, observations: Tensor) -> Tensor:
        """Of the distribution of actions, ``B x T``."""


@runtime_checkable
class CostModel(Protocol):
    """What the loss needs, too, of a policy that says what steps cost."""

    def log_cost(self, observations: Tensor) -> Tensor:
        """The logarithm of what the step cost that led to an observation, ``B x T``."""


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of a policy and its critic on episodes, wherever the policy stands that played them.

    With q the policy that played, ``likelihood_ratio`` is −mean of (π(a|s) / q(a|s) − 1) · A (ProMP's
    low-variance curvature; Rothfuss 2019). Each action is weighed on its own, so the second derivative leaves
    out the products of different steps' scores: little variance, for a bias that vanishes where advantages
    are exact.

    ``dice``: every advantage weighed by all the choices that led to it (Foerster 2018; Farquhar 2019). With
    w_t = Π_{u≤t} π(a_u|s_u) / q(a_u|s_u) it is −mean of (w_t − w_{t−1}) · A_t. Where A_t is what was gained
    from step t on, less any baseline, its derivatives of every order are unbiased for those of the expected
    return; an advantage that trusts a fit for what follows (λ < 1) varies less and is biased.

    Args:
        surrogate: which of the two.
        clip: how far a ratio may gain from leaving 1 (PPO's clipping; of ``likelihood_ratio`` alone).
        value: weight of the critic's Huber loss. It moves what actor and critic share, so a few episodes of
            rewards, whatever actions led to them, tell the actor about the task.
        entropy: weight of the entropy bonus.
        cost: weight of the error of what steps are said to cost. It moves the task's vector as the critic's
            does, with little noise: a cost follows from what is seen and from what counts, and nothing else.
    """

    surrogate: Surrogate = "likelihood_ratio"
    clip: float | None = None
    value: float = 0.5
    entropy: float = 0.0
    cost: float = 0.0

    def __call__(self, module: nn.Module, batch: Trajectories) -> Tensor:
        """The loss, shape ``()``; at the policy that played, its value is minus the mean reward."""
        if not isinstance(module, Policy):
            raise TypeError(f"{type(module).__name__} gives no log-probabilities and values")
        log_probability = module.log_probability(batch.observations, batch.actions)
        choices = log_probability - batch.log_probabilities
        if self.surrogate == "dice":
            until = choices.cumsum(1)
            weight = torch.exp(until) - torch.exp(until - choices)
        else:
            weight = torch.exp(choices) - 1
        gain = weight * batch.advantages
        if self.clip is not None and self.surrogate == "likelihood_ratio":
            gain = torch.minimum(gain, weight.clamp(-self.clip, self.clip) * batch.advantages)
        loss = -gain.mean() - batch.rewards.mean()
        if self.value:
            critic = functional.smooth_l1_loss(module.value(batch.observations), batch.targets)
            loss = loss + self.value * (critic - critic.detach())
        if self.cost:
            if not isinstance(module, CostModel):
                raise TypeError(f"{type(module).__name__} does not say what steps cost")
            # A reward is seen in the observation after it.
            error = cost_error(module, batch.observations[:, 1:], batch.rewards[:, :-1])
            loss = loss + self.cost * (error - error.detach())
        if self.entropy:
            entropy = module.entropy(batch.observations).mean()
            loss = loss - self.entropy * (entropy - entropy.detach())
        return loss


@dataclass(frozen=True)
class Advantages:
    """How much better than expected an action turned out: generalised advantage estimation (Schulman 2016).

    What is expected is a straight-line fit, over all episodes and steps of a batch, of the discounted return
    to features of time and of the observation (Duan 2016): few episodes suffice, and nothing of it is
    learned.

    Args:
        discount: γ.
        smoothing: λ.
        ridge: of the fit.
    """

    discount: float = 0.95
    smoothing: float = 0.95
    ridge: float = 1.0

    def of(self, played: Played, features: Tensor, scale: float | None = None) -> Tensor:
        """The advantages, with mean 0 over the batch, ``B x T``.

        Args:
            played: B episodes of T steps.
            features: of the observations, to fit with, ``B x T x F``.
            scale: what they are multiplied with; none gives them deviation 1 over the batch, which makes
                tasks weigh the same however much is at stake in them.
        """
        rewards = played.rewards.double()
        expected = self._fit(features.double(), discounted(rewards, self.discount))
        # An episode ends by the clock, not because there is nothing more to gain: what would follow is
        # expected too.
        following = torch.cat([expected[:, 1:], expected[:, -1:]], 1)
        surprise = rewards + self.discount * following - expected
        advantages = discounted(surprise, self.discount * self.smoothing)
        factor = 1 / (advantages.std(correction=0) + 1e-8) if scale is None else scale
        return (factor * (advantages - advantages.mean())).float()

    def _fit(self, features: Tensor, returns: Tensor) -> Tensor:
        """The values of the fit at every step, ``B x T``."""
        count, steps = returns.shape
        time = torch.linspace(0, 1, steps, dtype=features.dtype).expand(count, steps)
        columns = torch.cat([torch.stack([torch.ones_like(time), time, time**2, time**3], -1), features], -1)
        flat, target = columns.flatten(0, 1), returns.flatten()
        gram = flat.T @ flat + self.ridge * torch.eye(flat.shape[1], dtype=flat.dtype)
        fitted: Tensor = flat @ torch.linalg.solve(gram, flat.T @ target)
        return fitted.reshape(count, steps)


LEAST_COST = 1e-3
"""What cheaper steps count as in the logarithm."""


def cost_error(model: CostModel, observations: Tensor, rewards: Tensor) -> Tensor:
    """How wrong a policy is about costs, shape ``()``: Huber's loss of their logarithms.

    In the logarithm clusters count the same whatever their costs are, and one inner rate fits all.

    Args:
        model: says what steps cost.
        observations: after steps, ``... x size``.
        rewards: of these steps, ``...``.
    """
    target = (-rewards).clamp(min=LEAST_COST).log()
    return functional.smooth_l1_loss(model.log_cost(observations), target)


def log_probabilities(policy: nn.Module, params: Params, observations: Tensor, actions: Tensor) -> Tensor:
    """Of actions under a policy with parameters of its own, ``B x T``."""
    host = _LogProbability(policy)
    lent = {f"policy.{name}": p for name, p in params.items()}
    likely: Tensor = functional_call(host, lent, (observations, actions))
    return likely


class _LogProbability(nn.Module):
    """A policy whose call gives log-probabilities, since PyTorch lends parameters to calls alone."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.policy.log_probability(observations, actions)  # type: ignore[operator,no-any-return]


def discounted(rewards: Tensor, discount: float) -> Tensor:
    """Σ_{u≥t} discount^{u−t} · reward_u, ``B x T``."""
    backwards = np.ascontiguousarray(rewards.numpy()[:, ::-1])
    total = lfilter([1.0], [1.0, -discount], backwards, axis=1)[:, ::-1]
    return torch.from_numpy(total.copy()).to(rewards)
