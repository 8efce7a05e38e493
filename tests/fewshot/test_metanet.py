"""Meta Networks: every part, and the whole, against loops over episodes, support images and queries."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.fewshot.accuracy import BLOCK, measure
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.data.toy import toy_splits
from innerloop.fewshot.episodes import Episodes, EpisodeShape, EpisodeStream
from innerloop.fewshot.learners.base import EpisodicLearner
from innerloop.fewshot.learners.metanet import (
    LOG_RANGE,
    MetaNet,
    MetaNetworks,
    TwoLayers,
    augmented,
    base_loss,
    example_gradients,
    plain,
)
from innerloop.fewshot.learners.method import Problem
from innerloop.fewshot.learners.preprocessing import log_and_sign

EPISODES, WAYS, SHOTS, QUERIES = 2, 3, 2, 4
TASK_EXAMPLES = 4
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def randoms(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def fresh_net() -> MetaNet:
    return MetaNet(Conv4(1, 16, width=7), WAYS, hidden=6, generator_hidden=5, task_examples=TASK_EXAMPLES)


@pytest.fixture
def net() -> MetaNet:
    """As if trained: with fast weights, and running statistics unlike those of a fresh batch norm."""
    net = fresh_net()
    for generator in (net.task_generator.output, net.example_generator.layers[-1]):
        generator.reset_parameters()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
    return net.double().eval()


@pytest.fixture
def episodes() -> Episodes:
    labels = torch.arange(WAYS).repeat(SHOTS)
    return Episodes(
        randoms(EPISODES, WAYS * SHOTS, 1, 16, 16),
        torch.stack([labels[torch.randperm(len(labels))] for _ in range(EPISODES)]),
        randoms(EPISODES, QUERIES, 1, 16, 16),
        torch.randint(WAYS, (EPISODES, QUERIES)),
        WAYS,
    )


def without_task_weights(net: MetaNet) -> MetaNet:
    nn.init.zeros_(net.task_generator.output.weight)
    nn.init.zeros_(net.task_generator.output.bias)
    return net


# The algorithm as the paper writes it, one image at a time


def gradient(loss: Tensor, layers: TwoLayers, second_derivatives: bool) -> Tensor:
    gradients = torch.autograd.grad(loss, list(layers.parameters()), create_graph=second_derivatives)
    return torch.cat([part.flatten() for part in gradients])


def two_layers(layers: TwoLayers, fast: Tensor | None, feature: Tensor) -> Tensor:
    first, second = layers.hidden.weight, layers.output.weight
    if fast is None:
        return second @ torch.relu(first @ feature)
    fast_first, fast_second = fast[: first.numel()].view_as(first), fast[first.numel() :].view_as(second)
    hidden = torch.relu(first @ feature) + torch.relu(fast_first @ feature)
    return second @ hidden + fast_second @ hidden


def reference_scores(net: MetaNet, episode: Episodes, second_derivatives: bool = False) -> Tensor:
    """One episode's, ``Q x N``; meta information is constant unless second derivatives are asked for."""
    support, query = net.backbone(episode.support[0]), net.backbone(episode.query[0])
    labels = episode.support_labels[0].tolist()
    constant = support if second_derivatives else support.detach()

    embedded = [two_layers(net.representation, None, feature) for feature in constant]
    classes = [
        torch.stack([e for e, label in zip(embedded, labels, strict=True) if label == c]).mean(0).detach()
        for c in range(WAYS)
    ]
    meta_information = []
    for own, label in list(zip(embedded, labels, strict=True))[:TASK_EXAMPLES]:
        similar = torch.stack([F.cosine_similarity(own, mean, dim=0) for mean in classes])
        loss = similar.logsumexp(0) - similar[label]
        meta_information.append(gradient(loss, net.representation, second_derivatives))
    task = net.task_generator(torch.stack(meta_information)[None])[0]

    values, keys = [], []
    for i, label in enumerate(labels):
        logits = two_layers(net.base, None, constant[i])
        loss = logits.logsumexp(0) - logits[label]
        values.append(net.example_generator(gradient(loss, net.base, second_derivatives)))
        keys.append(two_layers(net.representation, task, support[i]))

    scores = []
    for feature in query:
        asked = two_layers(net.representation, task, feature)
        weights = [F.cosine_similarity(asked, key, dim=0).exp() for key in keys]
        read = torch.zeros_like(values[0])
        for weight, value in zip(weights, values, strict=True):
            read = read + weight / sum(weights) * value
        scores.append(two_layers(net.base, read, feature))
    return torch.stack(scores)


def reference_loss(net: MetaNet, episodes: Episodes, second_derivatives: bool = False) -> Tensor:
    scores = [reference_scores(net, episodes[i : i + 1], second_derivatives) for i in range(EPISODES)]
    return F.cross_entropy(torch.cat(scores), episodes.query_labels.flatten())


def parameter_gradients(net: MetaNet, loss: Tensor) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    return dict(zip(dict(net.named_parameters()), gradients, strict=True))


def test_scores_are_those_of_the_algorithm_written_as_loops(net: MetaNet, episodes: Episodes) -> None:
    wanted = torch.stack([reference_scores(net, episodes[i : i + 1]) for i in range(EPISODES)])
    torch.testing.assert_close(net.scores(episodes), wanted, **CLOSE)
    with torch.no_grad():  # as tests call it
        torch.testing.assert_close(net.scores(episodes), wanted.detach(), **CLOSE)


def test_meta_information_is_constant_to_training(net: MetaNet, episodes: Episodes) -> None:
    found = parameter_gradients(net, net.loss(episodes))
    torch.testing.assert_close(found, parameter_gradients(net, reference_loss(net, episodes)), **CLOSE)
    second_order = parameter_gradients(net, reference_loss(net, episodes, second_derivatives=True))
    for slow in ("base.hidden.weight", "representation.hidden.weight"):
        assert not torch.allclose(found[slow], second_order[slow], rtol=1e-3, atol=1e-6), slow


def test_gradients_reach_every_parameter(net: MetaNet, episodes: Episodes) -> None:
    gradients = parameter_gradients(net, net.loss(episodes))
    assert not [name for name, found in gradients.items() if float(found.abs().max()) < 1e-9]


# Layers


@pytest.fixture
def layers() -> TwoLayers:
    return TwoLayers(features=5, hidden=4, outputs=3).double()


def test_slow_and_fast_weights_meet_after_the_nonlinearity(layers: TwoLayers) -> None:
    fast = layers.shaped(randoms(2, 6, 4 * 5 + 3 * 4))
    features = randoms(2, 6, 5)
    found = augmented(layers.slow, fast, features)
    for episode in range(2):
        for query in range(6):
            x, first, second = (t[episode, query] for t in (features, fast.hidden, fast.output))
            hidden = torch.relu(layers.hidden.weight @ x) + torch.relu(first @ x)
            wanted = (layers.output.weight + second) @ hidden
            torch.testing.assert_close(found[episode, query], wanted, **CLOSE)


def test_fast_weights_of_an_episode_serve_all_its_images(layers: TwoLayers) -> None:
    coordinates, features = randoms(2, 1, 4 * 5 + 3 * 4), randoms(2, 6, 5)
    one_an_episode = augmented(layers.slow, layers.shaped(coordinates), features)
    one_an_image = augmented(layers.slow, layers.shaped(coordinates.expand(-1, 6, -1)), features)
    torch.testing.assert_close(one_an_episode, one_an_image, **CLOSE)


def test_without_fast_weights_the_layers_are_plain(layers: TwoLayers) -> None:
    features = randoms(2, 6, 5)
    nothing = layers.shaped(torch.zeros(2, 6, 4 * 5 + 3 * 4, dtype=torch.float64))
    wanted = nn.Sequential(layers.hidden, nn.ReLU(), layers.output)(features)
    torch.testing.assert_close(plain(layers.slow, features), wanted, **CLOSE)
    torch.testing.assert_close(augmented(layers.slow, nothing, features), wanted, **CLOSE)


def test_a_fresh_net_has_no_fast_weights(episodes: Episodes) -> None:
    net = fresh_net().double().eval()
    features = net.backbone(episodes.query.flatten(0, 1))
    wanted = plain(net.base.slow, features).unflatten(0, (EPISODES, QUERIES))
    torch.testing.assert_close(net.scores(episodes), wanted, **CLOSE)


def test_weights_are_put_in_a_row_and_back(layers: TwoLayers) -> None:
    coordinates = randoms(2, 6, 4 * 5 + 3 * 4)
    weights = layers.shaped(coordinates)
    assert weights.hidden.shape == (2, 6, 4, 5)
    assert weights.output.shape == (2, 6, 3, 4)
    assert torch.equal(weights.coordinates(), coordinates)


# Meta information


def test_example_gradients_are_autograds_one_by_one(layers: TwoLayers) -> None:
    features, labels = randoms(2, 6, 5), torch.randint(3, (2, 6))
    found = example_gradients(base_loss, layers.slow, features, labels)
    assert not found.requires_grad
    for episode in range(2):
        for i in range(6):
            logits = layers.output(layers.hidden(features[episode, i]).relu())
            loss = F.cross_entropy(logits[None], labels[episode, i, None])
            torch.testing.assert_close(found[episode, i], gradient(loss, layers, False), **CLOSE)


def test_the_base_gradient_of_the_output_layer_has_the_known_form(layers: TwoLayers) -> None:
    """∇_{W₂} ℓ = (p − y) hᵀ."""
    features, labels = randoms(1, 6, 5), torch.randint(3, (1, 6))
    found = layers.shaped(example_gradients(base_loss, layers.slow, features, labels)).output
    hidden = layers.hidden(features).relu()
    error = layers.output(hidden).softmax(-1) - F.one_hot(labels, 3)
    torch.testing.assert_close(found, error[..., None] * hidden[..., None, :], **CLOSE)


# The networks that make fast weights


@pytest.mark.parametrize("generator", ["task_generator", "example_generator"])
def test_coordinates_are_treated_alike_and_apart(net: MetaNet, generator: str) -> None:
    generate = net.get_submodule(generator)
    gradients = 0.1 * randoms(2, 3, 11)
    found = generate(gradients)
    order = torch.randperm(11)
    torch.testing.assert_close(generate(gradients[..., order]), found[..., order], **CLOSE)
    changed = gradients.clone()
    changed[..., 4] *= -3
    moved = (generate(changed) != found).flatten(0, -2).any(0)
    assert moved.tolist() == [coordinate == 4 for coordinate in range(11)]


def test_the_task_generator_reads_a_coordinates_gradients_in_turn(net: MetaNet) -> None:
    generator = net.task_generator
    cell = nn.LSTMCell(2, 5).double()
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in generator.lstm.state_dict().items()})
    gradients = 0.1 * randoms(2, 3, 4)
    for episode in range(2):
        for coordinate in range(4):
            state = (torch.zeros(1, 5, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64))
            for step in range(3):
                state = cell(log_and_sign(gradients[episode, step, coordinate], LOG_RANGE)[None], state)
            wanted = generator.output(state[0]).squeeze()
            torch.testing.assert_close(generator(gradients)[episode, coordinate], wanted, **CLOSE)


# What the scores do and do not depend on


def test_episodes_together_are_episodes_one_by_one(net: MetaNet, episodes: Episodes) -> None:
    together = net.scores(episodes)
    for i in range(EPISODES):
        torch.testing.assert_close(net.scores(episodes[i : i + 1]), together[i : i + 1], **CLOSE)


def test_a_query_is_scored_whatever_the_others_are(net: MetaNet, episodes: Episodes) -> None:
    query = episodes.query.clone()
    query[:, 1:] = randoms(*query[:, 1:].shape)
    found = net.scores(replace(episodes, query=query))
    torch.testing.assert_close(found[:, 0], net.scores(episodes)[:, 0], **CLOSE)


def test_the_order_of_the_support_images_matters_to_the_task_generator_alone(
    net: MetaNet, episodes: Episodes
) -> None:
    order = torch.tensor([1, 0, *range(2, WAYS * SHOTS)])
    reordered = replace(
        episodes, support=episodes.support[:, order], support_labels=episodes.support_labels[:, order]
    )
    assert not torch.allclose(net.scores(reordered), net.scores(episodes), rtol=1e-9)
    without_task_weights(net)
    torch.testing.assert_close(net.scores(reordered), net.scores(episodes), **CLOSE)


def test_labels_mean_nothing_beyond_the_output_layers_rows(net: MetaNet, episodes: Episodes) -> None:
    with torch.no_grad():
        net.base.output.weight.copy_(net.base.output.weight[:1].expand(WAYS, -1))
    renamed = torch.tensor([2, 0, 1])
    found = net.scores(replace(episodes, support_labels=renamed[episodes.support_labels]))
    torch.testing.assert_close(found[..., renamed], net.scores(episodes), **CLOSE)
    assert not torch.allclose(found, net.scores(episodes), rtol=1e-3)


# The method


def toy_learner() -> EpisodicLearner:
    settings = MetaNetworks("metanet", hidden=32, generator_hidden=10, task_examples=5)
    return settings.build(Problem(1, 16, 5), lambda running: Conv4(1, 16, width=16, running=running))


def test_it_is_tested_on_as_many_classes_as_it_was_built_for() -> None:
    assert toy_learner().fixed_ways


def test_it_learns() -> None:
    splits, shape, learner = toy_splits(), EpisodeShape(5, 1, 5), toy_learner()
    optimizer = torch.optim.Adam(learner.net.parameters(), lr=3e-3)
    stream = EpisodeStream(splits.train, shape, block=4, seed=0)
    for _ in range(60):
        optimizer.zero_grad()
        learner.net.loss(stream.take()).backward()
        optimizer.step()
    tested = EpisodeStream(splits.test, shape, BLOCK, 0)
    accuracies = measure(learner, tested, 40, torch.device("cpu")).inductive
    assert sum(accuracies) / len(accuracies) > 0.5
