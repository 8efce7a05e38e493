"""The policy minds what it should and nothing else: order, padding, noise; and the distribution it claims."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.rl.families import Family
from innerloop.rl.observation import Parts
from innerloop.rl.policy import LAYERS, ClusterPolicy, freeze, named_layers
from innerloop.rl.rollout import draw_noise, silence
from rl.small import BALANCING, BOTH, SCALING, course, policy_of, scenarios

both = pytest.mark.parametrize("family", BOTH, ids=lambda family: family.name)


def seen_by(policy: ClusterPolicy, family: Family, clusters: int = 6) -> Tensor:
    return torch.from_numpy(policy.layout.observe(course(scenarios(family, clusters))[3]))


def joined(parts: Parts[Tensor]) -> Tensor:
    flat = [parts.applications.flatten(1), parts.nodes.flatten(1), parts.regions, parts.ways.flatten(1)]
    return torch.cat([*flat, parts.common], 1)


def reordered(policy: ClusterPolicy, seen: Tensor, applications: Tensor, nodes: Tensor) -> Tensor:
    parts = policy.layout.split(seen)
    return joined(
        Parts(
            parts.applications[:, applications],
            parts.nodes[:, nodes],
            parts.regions,
            parts.ways[..., nodes],
            parts.common,
        )
    )


@both
def test_applications_and_nodes_have_no_order(family: Family) -> None:
    policy = policy_of(family)
    seen = seen_by(policy, family)
    generator = torch.Generator().manual_seed(1)
    applications = torch.randperm(policy.layout.applications, generator=generator).roll(1)
    nodes = torch.randperm(policy.layout.nodes, generator=generator).roll(1)
    before = policy.action_parameters(seen)
    after = policy.action_parameters(reordered(policy, seen, applications, nodes))
    expected = before[:, applications] if family.kind == "scaling" else before[..., nodes]
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)
    value = policy.value(reordered(policy, seen, applications, nodes))
    torch.testing.assert_close(value, policy.value(seen), rtol=1e-5, atol=1e-6)


@both
def test_one_pass_gives_what_the_single_methods_give(family: Family) -> None:
    policy = policy_of(family)
    seen = seen_by(policy, family)
    actions = policy(seen, policy.noise((len(seen),), torch.Generator().manual_seed(1)))
    judged = policy.judged(seen, actions)
    torch.testing.assert_close(judged.value, policy.value(seen))
    torch.testing.assert_close(judged.log_probability, policy.log_probability(seen, actions))
    torch.testing.assert_close(judged.entropy, policy.entropy(seen))


@both
def test_what_is_there_matters(family: Family) -> None:
    policy = policy_of(family)
    seen = seen_by(policy, family)
    for place in (policy.layout.split(seen).applications, policy.layout.split(seen).nodes):
        base = policy.action_parameters(seen).clone()
        place[:, 0, 5] += 1.0  # a view of what the policy sees
        assert not torch.allclose(policy.action_parameters(seen), base, atol=1e-4)


def test_the_log_probability_of_choices_is_that_of_independent_softmaxes() -> None:
    policy = policy_of(SCALING)
    seen = seen_by(policy, SCALING)
    actions = torch.randint(7, (len(seen), policy.layout.applications))
    logits = policy.action_parameters(seen).double()
    for number, scenario in enumerate(scenarios(SCALING, len(seen))):
        expected = entropy = 0.0
        for application in range(len(scenario.applications)):
            shares = [math.exp(value) for value in logits[number, application].tolist()]
            shares = [share / sum(shares) for share in shares]
            expected += math.log(shares[int(actions[number, application])])
            entropy -= sum(share * math.log(share) for share in shares)
        assert float(policy.log_probability(seen, actions)[number].detach()) == pytest.approx(
            expected, rel=1e-5
        )
        assert float(policy.entropy(seen)[number].detach()) == pytest.approx(entropy, rel=1e-5)


def test_the_log_probability_of_scores_is_normal_up_to_a_constant() -> None:
    policy = policy_of(BALANCING)
    seen = seen_by(policy, BALANCING)
    actions = torch.randn(len(seen), policy.layout.regions * policy.layout.nodes)
    means = policy.action_parameters(seen)
    deviation = policy.log_deviation.exp()
    normal = torch.distributions.Normal(means, deviation)
    every = normal.log_prob(actions.reshape(means.shape)) + 0.5 * math.log(2 * math.pi)
    constant = 0.5 * math.log(2 * math.pi * math.e)
    for number, scenario in enumerate(scenarios(BALANCING, len(seen))):
        there = np.s_[number, : len(scenario.round_trip), : len(scenario.nodes)]
        torch.testing.assert_close(policy.log_probability(seen, actions)[number], every[there].sum())
        entropy = normal.entropy().expand_as(means)[there] - constant
        torch.testing.assert_close(policy.entropy(seen)[number], entropy.sum())


def test_a_node_that_is_down_takes_no_part() -> None:
    policy = policy_of(BALANCING)
    seen = seen_by(policy, BALANCING, 1)
    there = policy.layout.split(seen).ways[0] > 0
    nodes = int(there[0].sum())
    policy.layout.split(seen).nodes[0, 0] = 0.0
    actions = torch.randn(1, policy.layout.regions, policy.layout.nodes)
    before = policy.log_probability(seen, actions.flatten(1))
    actions[:, :, 0] += 5.0
    assert policy.log_probability(seen, actions.flatten(1)).equal(before)
    actions[:, :, nodes - 1] += 5.0
    assert not policy.log_probability(seen, actions.flatten(1)).equal(before)


def test_choices_come_as_often_as_the_softmax_says() -> None:
    policy = policy_of(SCALING)
    seen = seen_by(policy, SCALING, 1)
    draws = 4000
    noise = draw_noise(policy, draws, 1, seed=5)[:, 0]
    chosen = policy(seen.expand(draws, -1), noise)
    shares = policy.action_parameters(seen)[0].detach().double().softmax(-1)
    for application in range(policy.layout.applications):
        counts = torch.bincount(chosen[:, application], minlength=7).numpy()
        assert chisquare(counts, draws * shares[application].numpy()).pvalue > 1e-3
    # The test has the power to see a wrong temperature.
    wrong = (0.7 * policy.action_parameters(seen)[0].detach().double()).softmax(-1)
    counts = torch.bincount(chosen[:, 0], minlength=7).numpy()
    assert chisquare(counts, draws * wrong[0].numpy()).pvalue < 1e-3


def test_scores_spread_as_the_deviation_says() -> None:
    policy = policy_of(BALANCING)
    seen = seen_by(policy, BALANCING, 1)
    draws = 2000
    noise = draw_noise(policy, draws, 1, seed=5)[:, 0]
    scores = policy(seen.expand(draws, -1), noise)
    means = policy.action_parameters(seen).flatten()
    standard = ((scores - means) / policy.log_deviation.exp()).detach()
    assert kstest(standard[:, 0].numpy(), "norm").pvalue > 1e-3
    assert kstest(standard[:, 1].numpy(), "norm").pvalue > 1e-3


@both
def test_noise_follows_from_its_seed_and_silence_is_the_likeliest_action(family: Family) -> None:
    policy = policy_of(family)
    seen = seen_by(policy, family)
    first, again, other = (draw_noise(policy, 2, 3, seed) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    likeliest = policy(seen, silence(policy, len(seen), 1)[:, 0])
    most = policy.log_probability(seen, likeliest)
    for noise in draw_noise(policy, 20, len(seen), 3):
        assert (policy.log_probability(seen, policy(seen, noise)) <= most + 1e-5).all()


@both
def test_a_fresh_policy_tries_everything(family: Family) -> None:
    policy = ClusterPolicy(policy_of(family).shape, family.layout)
    parameters = policy.action_parameters(seen_by(policy, family))
    assert parameters.abs().max() < 0.1


def test_layers_are_all_there_is_and_freezing_takes_some_of_them() -> None:
    for family in BOTH:
        policy = policy_of(family)
        named = {name.split(".")[0] for name, _ in policy.named_parameters()}
        assert named == set(LAYERS)
        freeze(policy, ("context", "task"))
        frozen = {name.split(".")[0] for name, p in policy.named_parameters() if not p.requires_grad}
        assert frozen == {"context", "task"}
        freeze(policy, ())
        assert all(p.requires_grad for p in policy.parameters())


def test_a_layer_that_there_is_not_is_refused_with_the_list() -> None:
    assert named_layers([5, 0]) == ("critic", "application_encoder")
    for wrong in (-1, 7):
        with pytest.raises(InputError) as refusal:
            named_layers([0, wrong])
        assert str(refusal.value) == (
            f"frozen_layers: there is no layer {wrong}; there are: 0 application_encoder, 1 node_encoder, "
            "2 context, 3 task, 4 actor, 5 critic, 6 cost"
        )
