"""Facts: what latency and replicas cost, told to a policy in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.rl.artifacts import fresh_policy, load_artifact
from innerloop.rl.config import load_config
from innerloop.rl.facts import FACTS, FARTHEST, facts_of
from innerloop.rl.families import Alone, KubernetesScaling
from innerloop.rl.policy_gradient import cost_error
from innerloop.rl.ppo import PPOTrainer
from innerloop.rl.ppo_run import train
from innerloop.rl.rollout import acting_for_each, draw_noise, play
from rl.small import SCALING, policy_of, scenarios, tiny


@given(st.integers(0, 10_000))
def test_facts_lie_between_the_farthest(number: int) -> None:
    family = KubernetesScaling()
    facts = facts_of(family.split("train").scenario(number), family)
    assert len(facts) == FACTS
    assert all(-FARTHEST <= fact <= FARTHEST for fact in facts)


def test_facts_are_costs_in_the_units_of_observations() -> None:
    family = KubernetesScaling(
        latency_weight=(1.0, 4.0), latency_threshold=(0.1, 0.4), replica_weight=(0.1, 0.2), max_pods=(4, 8)
    )
    scenario = family.split("train").scenario(0)
    most = [app.max_replicas for app in scenario.applications]
    latency = scenario.reward.latency * scenario.threshold
    replicas = scenario.reward.replica * np.mean(most)
    # Half way in the logarithm is the geometric mean of the ends.
    expected = [
        FARTHEST * np.log(latency / np.sqrt(0.1 * 1.6)) / np.log(np.sqrt(1.6 / 0.1)),
        FARTHEST * np.log(replicas / np.sqrt(0.4 * 1.6)) / np.log(np.sqrt(1.6 / 0.4)),
    ]
    assert facts_of(scenario, family) == pytest.approx(expected)


def test_where_all_members_are_alike_there_is_nothing_to_tell() -> None:
    family = KubernetesScaling(
        latency_weight=(1.0, 1.0), latency_threshold=(0.2, 0.2), replica_weight=(0.0, 0.0), max_pods=(8, 8)
    )
    assert facts_of(family.split("train").scenario(3), family) == (0.0, 0.0)


def test_facts_move_the_task_vector_and_nothing_else() -> None:
    policy = policy_of(SCALING)
    seen = torch.rand(5, policy.layout.size)
    told = torch.cat([seen, torch.tensor([0.5, -0.25]).expand(5, FACTS)], dim=-1)
    moved = policy_of(SCALING)
    moved.load_state_dict(policy.state_dict())
    with torch.no_grad():
        moved.task[:FACTS] += torch.tensor([0.5, -0.25])
    for what in ("action_parameters", "value", "log_cost", "entropy"):
        torch.testing.assert_close(getattr(policy, what)(told), getattr(moved, what)(seen))
        assert not torch.allclose(getattr(policy, what)(told), getattr(policy, what)(seen))


def test_only_members_of_a_family_can_be_told_of(tmp_path: Path) -> None:
    config = tiny(tmp_path, "ppo.told=true")
    with pytest.raises(TypeError, match="no members of a family"):
        PPOTrainer(fresh_policy(config), Alone(scenarios(SCALING, 1)[0]), config.control, config.ppo, None, 0)


def test_a_task_vector_without_room_for_facts_is_refused() -> None:
    with pytest.raises(InputError, match=r"policy\.task_width is 1; with ppo\.told it must be 2 or more"):
        load_config(None, None, ["ppo.told=true", "policy.task_width=1"])


def test_a_policy_that_was_told_says_what_steps_cost_and_whose_costs_they_are(tmp_path: Path) -> None:
    words = ("ppo.told=true", "ppo.clusters=32", "ppo.batch_size=64", "family.steps=10", "policy.width=16")
    config = tiny(tmp_path, *words, "trainer.total_steps=60")
    policy = load_artifact(train(config).checkpoint).policy
    members = config.family.split("validation")
    some = [members.scenario(number) for number in range(32)]
    facts = torch.tensor([facts_of(scenario, config.family) for scenario in some])
    alike = {name: p.detach()[None] for name, p in policy.named_parameters()}
    played = play(
        acting_for_each(policy, alike, 1),
        some,
        range(32),
        config.control,
        policy.layout,
        draw_noise(policy, 32, 10, 0),
    )
    seen, rewards = played.observations[:, 1:], played.rewards[:, :-1]
    told = torch.cat([seen, facts[:, None].expand(-1, seen.shape[1], -1)], dim=-1)
    others = torch.cat([seen, facts.flip(0)[:, None].expand(-1, seen.shape[1], -1)], dim=-1)
    right, wrong, untold = (float(cost_error(policy, s, rewards).detach()) for s in (told, others, seen))
    assert right < 0.5 * untold < wrong
    assert right < 0.05


def test_who_is_not_told_learns_costs_as_well(tmp_path: Path) -> None:
    before = fresh_policy(tiny(tmp_path)).cost[-1].weight.clone()
    policy = load_artifact(train(tiny(tmp_path, "trainer.total_steps=1")).checkpoint).policy
    assert not before.equal(policy.cost[-1].weight)


def test_a_frozen_network_of_costs_stays_as_it_is(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    policy = fresh_policy(config)
    policy.cost.requires_grad_(False)
    before = [p.clone() for p in policy.cost.parameters()]
    members = config.family.split("train")
    trainer = PPOTrainer(policy, members, config.control, replace(config.ppo, told=True), None, 0)
    assert trainer.round()["cost_loss"] > 0
    assert all(p.equal(b) for p, b in zip(policy.cost.parameters(), before, strict=True))
