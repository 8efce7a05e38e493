"""The point and its goals, and that meta-training makes one gradient step worth something."""

import math

import pytest
import torch

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import VmapLearner
from innerloop.core.metagrad import Exact
from innerloop.rl.navigation import ARRIVED, FARTHEST_STEP, NavigationSampler, NavigationTask, PointPolicy
from innerloop.rl.policy_gradient import PolicyLoss


@pytest.fixture
def policy() -> PointPolicy:
    torch.manual_seed(0)
    return PointPolicy(width=16)


def parameters(policy: PointPolicy) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in policy.named_parameters()}


def test_an_episode_by_hand(policy: PointPolicy) -> None:
    task = NavigationTask(policy, (0.3, -0.2), seed=1, episodes=3, steps=5)
    played = task.play("query", parameters(policy))
    for episode in range(3):
        x, y = 0.0, 0.0
        for step in range(5):
            assert played.observations[episode, step].tolist() == pytest.approx([x, y], abs=1e-6)
            dx, dy = (
                max(-FARTHEST_STEP, min(FARTHEST_STEP, v)) for v in played.actions[episode, step].tolist()
            )
            x, y = x + dx, y + dy
            square = (x - 0.3) ** 2 + (y + 0.2) ** 2
            assert played.rewards[episode, step].item() == pytest.approx(-square, abs=1e-6)


def test_a_point_that_has_arrived_stays_and_earns_nothing_more(policy: PointPolicy) -> None:
    task = NavigationTask(policy, (0.0, 0.0), seed=1, episodes=200, steps=30)
    # Tiny moves around none: the first step already ends nearer than needed.
    params = parameters(policy)
    params |= {name: torch.zeros_like(p) for name, p in params.items() if name.startswith("mean.4")}
    params["log_deviation"] = torch.full((2,), math.log(ARRIVED / 10))
    played = task.play("query", params)
    assert (played.rewards[:, 0] < 0).all()
    assert (played.rewards[:, 1:] == 0).all()
    assert torch.equal(played.observations[:, 1:], played.observations[:, 1:2].expand(-1, 29, -1))


def test_goals_and_episodes_follow_from_seed_and_number(policy: PointPolicy) -> None:
    first, second = NavigationSampler(policy, 3, seed=4), NavigationSampler(policy, 3, seed=4)
    drawn = [task.name for task in first.sample()]
    assert drawn == [task.name for task in second.sample()]
    second.load_state_dict({"drawn": 0})
    assert drawn == [task.name for task in second.sample()]
    assert drawn != [task.name for task in first.sample()]
    assert drawn != [task.name for task in NavigationSampler(policy, 3, seed=5).sample()]
    task = first.task(0)
    for place in (0, 1):
        once, again = (task.support(place, parameters(policy)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(
        task.support(0, parameters(policy)).actions, task.support(1, parameters(policy)).actions
    )


def test_log_probabilities_are_those_of_the_policy_that_played(policy: PointPolicy) -> None:
    other = {name: p + 0.05 * torch.randn_like(p) for name, p in parameters(policy).items()}
    before = parameters(policy) | {}
    kept = {name: p.clone() for name, p in before.items()}
    batch = NavigationSampler(policy, 1, seed=0).task(0).query(other)
    assert all(torch.equal(kept[name], p) for name, p in parameters(policy).items())
    means = torch.func.functional_call(
        policy, other, (batch.observations, torch.zeros_like(batch.observations))
    )
    deviation = other["log_deviation"].exp()
    expected = torch.distributions.Normal(means, deviation).log_prob(batch.actions).sum(-1)
    constant = math.log(2 * math.pi)
    assert torch.allclose(batch.log_probabilities, expected + constant, atol=1e-4)


def test_meta_training_makes_a_gradient_step_worth_something() -> None:
    torch.manual_seed(0)
    policy = PointPolicy(width=32)
    names = [name for name, _ in policy.named_parameters()]
    strategy = Exact(InnerLoop(SGD(), LearningRates(0.02, names, 1), 1))
    learner = VmapLearner(policy, PolicyLoss(value=0.0), 10)
    sampler = NavigationSampler(policy, 10, seed=0, episodes=10)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    after = []
    for _ in range(40):
        found = strategy(learner, learner.bundle(sampler.sample()))
        for name, p in learner.theta.items():
            p.grad = found.gradient[name] / 10
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimizer.step()
        after.append(-100 * float(found.query_loss.mean()))
        before = -100 * float(found.query_loss_before.mean())
    late = sum(after[-5:]) / 5
    # A point that stays at the origin earns -100 · E‖goal‖² = -16.7 on average.
    assert late > -12
    assert late > before + 3
    assert late > after[0] + 3
