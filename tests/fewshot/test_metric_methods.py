"""The methods that compare: each against its definition, written out plainly."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import Backbone
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.matching import MatchingNet, QueryContext, SupportContext
from innerloop.fewshot.learners.prototypical import PrototypicalNet
from innerloop.fewshot.learners.relation import RelationNet
from innerloop.fewshot.learners.siamese import SiameseTwins

FEATURES = 6


class Flat(Backbone):
    """The pixels themselves are the features."""

    features = FEATURES

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def some_episodes(shots: int = 2, size: int = 0, seed: int = 0) -> Episodes:
    """Two 3-way episodes of images of 1 x 1 x FEATURES, or of 1 x size x size, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, size, size) if size else (1, 1, FEATURES)
    labels = torch.stack([torch.randperm(3 * shots, generator=generator) % 3 for _ in range(2)])
    return Episodes(
        torch.randn(2, 3 * shots, *shape, generator=generator),
        labels,
        torch.randn(2, 4, *shape, generator=generator),
        torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]]),
        3,
    )


def of_class(episodes: Episodes, episode: int, label: int) -> list[Tensor]:
    return [
        image.flatten()
        for image, own in zip(episodes.support[episode], episodes.support_labels[episode], strict=True)
        if own == label
    ]


# Prototypical


def test_prototypical_scores_are_squared_distances_to_class_means() -> None:
    given = some_episodes()
    found = PrototypicalNet(Flat()).scores(given)
    for e in range(2):
        for q in range(4):
            for c in range(3):
                mean = torch.stack(of_class(given, e, c)).mean(0)
                distance = (given.query[e, q].flatten() - mean).square().sum()
                torch.testing.assert_close(found[e, q, c], -distance, atol=1e-4, rtol=1e-4)


def test_prototypical_probabilities_of_two_points_on_a_line_have_a_closed_form() -> None:
    """With prototypes at 0 and d on a line, log p_0 − log p_1 = d² − 2 d x."""
    points = torch.zeros(1, 2, 1, 1, FEATURES)
    points[0, 1, 0, 0, 0] = 3.0
    query = torch.zeros(1, 1, 1, 1, FEATURES)
    query[..., 0] = 1.0
    given = Episodes(points, torch.tensor([[0, 1]]), query, torch.tensor([[0]]), 2)
    log_p = PrototypicalNet(Flat()).scores(given).log_softmax(-1)[0, 0]
    assert float(log_p[0] - log_p[1]) == pytest.approx(9 - 2 * 3 * 1, rel=1e-5)


# Matching


def test_matching_is_attention_over_the_support_set() -> None:
    given = some_episodes()
    net = MatchingNet(Flat(), steps=0, temperature=0.25)
    found = net.scores(given).exp().detach()
    for e in range(2):
        for q in range(4):
            x = given.query[e, q].flatten()
            weights = []
            for image in given.support[e]:
                s = image.flatten()
                weights.append(math.exp(float(x @ s / (x.norm() * s.norm())) / 0.25))
            for c in range(3):
                share = sum(
                    w for w, own in zip(weights, given.support_labels[e].tolist(), strict=True) if own == c
                )
                assert float(found[e, q, c]) == pytest.approx(share / sum(weights), rel=1e-4)


def lstm_step(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM, in PyTorch's order of gates: input, forget, candidate, output."""
    w_x, w_h, b_x, b_h = weights
    i, f, g, o = (w_x @ x + b_x + w_h @ hidden + b_h).chunk(4)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def weights_of(lstm: nn.Module, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_x, w_h, b_x, b_h = (getattr(lstm, f"{name}{suffix}") for name in names)
    return w_x, w_h, b_x, b_h


def test_the_context_of_the_support_set_is_a_skip_and_two_lstms() -> None:
    torch.manual_seed(0)
    context = SupportContext(FEATURES)
    support = torch.randn(1, 5, FEATURES)
    ahead, behind = [], []
    hidden = cell = torch.zeros(FEATURES)
    for i in range(5):
        hidden, cell = lstm_step(support[0, i], hidden, cell, weights_of(context.lstm, "_l0"))
        ahead.append(hidden)
    hidden = cell = torch.zeros(FEATURES)
    for i in reversed(range(5)):
        hidden, cell = lstm_step(support[0, i], hidden, cell, weights_of(context.lstm, "_l0_reverse"))
        behind.insert(0, hidden)  # the state after reading g'_i backwards belongs to i
    expected = torch.stack([a + b + s for a, b, s in zip(ahead, behind, support[0], strict=True)])
    torch.testing.assert_close(context(support)[0], expected)


def test_the_context_of_a_query_reads_the_support_set_again_and_again() -> None:
    torch.manual_seed(1)
    steps = 3
    context = QueryContext(FEATURES, steps)
    query, support = torch.randn(1, 2, FEATURES), torch.randn(1, 4, FEATURES)
    for q in range(2):
        plain = query[0, q]
        hidden = read = cell = torch.zeros(FEATURES)
        for _ in range(steps):
            x = torch.cat([plain, hidden, read])
            emitted, cell = lstm_step(x, torch.zeros(FEATURES), cell, weights_of(context.cell, ""))
            hidden = emitted + plain
            attention = torch.stack([hidden @ g for g in support[0]]).softmax(0)
            read = sum((a * g for a, g in zip(attention, support[0], strict=True)), torch.zeros(FEATURES))
        torch.testing.assert_close(context(query, support)[0, q], hidden)


def test_contexts_are_part_of_the_net_with_fce_only() -> None:
    assert MatchingNet(Flat(), steps=0, temperature=0.1).support_context is None
    net = MatchingNet(Flat(), steps=2, temperature=0.1)
    given = some_episodes()
    net.loss(given).backward()
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0)
        for n, p in net.named_parameters()
        if "weight_hh" not in n
    )


# Relation


def relation_net() -> RelationNet:
    torch.manual_seed(2)
    return RelationNet(channels=1, size=16, width=4, hidden=8).eval()


def test_relation_scores_sum_the_maps_of_a_class() -> None:
    net, given = relation_net(), some_episodes(shots=2, size=16)
    found = net.logits(given)
    assert found.shape == (2, 4, 3)
    for e in range(2):
        for c in range(3):
            shots = torch.stack([image.view(1, 16, 16) for image in of_class(given, e, c)])
            summed = net.embedding(shots).sum(0)
            assert summed.shape == (4, 4, 4)  # two of four blocks pool
            for q in range(4):
                pair = torch.cat([summed, net.embedding(given.query[e, q : q + 1])[0]])
                torch.testing.assert_close(found[e, q, c], net.relation(pair[None])[0], atol=1e-5, rtol=1e-4)


def test_relation_loss_is_the_squared_error_of_the_sigmoid() -> None:
    net, given = relation_net(), some_episodes(shots=1, size=16)
    r = net.logits(given).sigmoid()
    errors = [
        (float(r[e, q, c]) - (c == int(given.query_labels[e, q]))) ** 2
        for e in range(2)
        for q in range(4)
        for c in range(3)
    ]
    assert float(net.loss(given)) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_relation_refuses_images_that_are_too_small() -> None:
    with pytest.raises(InputError, match="12 pixels are too few"):
        RelationNet(channels=1, size=12, width=4, hidden=8)


# Siamese


def siamese_net() -> SiameseTwins:
    torch.manual_seed(3)
    return SiameseTwins(Flat())


def test_siamese_pairs_are_weighted_l1_distances() -> None:
    net, given = siamese_net(), some_episodes()
    found = net.pairs(given)
    weight, bias = net.weigh.weight[0], net.weigh.bias[0]
    for e in range(2):
        for q in range(4):
            for s in range(6):
                apart = (given.query[e, q].flatten() - given.support[e, s].flatten()).abs()
                torch.testing.assert_close(found[e, q, s], weight @ apart + bias)


def test_siamese_scores_are_the_mean_over_a_class() -> None:
    net, given = siamese_net(), some_episodes()
    pairs, found = net.pairs(given), net.scores(given)
    for e in range(2):
        for c in range(3):
            own = given.support_labels[e] == c
            torch.testing.assert_close(found[e, :, c], pairs[e][:, own].mean(1))


def test_siamese_loss_weighs_alike_and_unlike_pairs_equally() -> None:
    net, given = siamese_net(), some_episodes()
    p = net.pairs(given).sigmoid()
    same = given.query_labels[:, :, None] == given.support_labels[:, None]
    expected = -(p[same].log().mean() + (1 - p[~same]).log().mean()) / 2
    torch.testing.assert_close(net.loss(given), expected)


def test_siamese_distance_is_symmetric() -> None:
    net, given = siamese_net(), some_episodes()
    turned = replace(given, support=given.query, query=given.support)
    torch.testing.assert_close(net.pairs(turned), net.pairs(given).mT)
