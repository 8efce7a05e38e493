"""The LSTM meta-learner against plain loops written here from the paper's equations."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.fewshot.backbones import Backbone, ConvBlock
from innerloop.fewshot.data.toy import toy_splits
from innerloop.fewshot.episodes import Episodes, EpisodeShape, EpisodeStream
from innerloop.fewshot.learners.classifier import Classifier
from innerloop.fewshot.learners.lstm_meta import (
    LstmMeta,
    LstmMetaLearner,
    LstmMetaNet,
    MetaLearner,
    MetaState,
)
from innerloop.fewshot.learners.method import Problem
from innerloop.fewshot.learners.preprocessing import log_and_sign

WAYS, SIZE, HIDDEN = 3, 6, 4


class Conv(Backbone):
    """One block with batch norm on batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ConvBlock(1, 2, running=False)
        self.features = 2 * (SIZE // 2) ** 2

    def forward(self, images: Tensor) -> Tensor:
        return self.block(images).flatten(1)


class Smooth(Backbone):
    """No batch norm, which makes the gradient of a bias before it vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 3), nn.Tanh())
        self.features = 3

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def net_of(backbone: Backbone, epochs: int = 2, batch_size: int = 4, lively: bool = True) -> LstmMetaNet:
    """In float64; ``lively`` draws weights of the meta-learner that make its gates move a lot."""
    net = LstmMetaNet(Classifier(backbone, WAYS), MetaLearner(HIDDEN), epochs, batch_size).double()
    if lively:
        with torch.no_grad():
            for parameter in net.meta_learner.parameters():
                parameter.uniform_(-0.5, 0.5)
            # Gates at a half would let θ dwindle, or run off to where no ReLU fires, within a few steps.
            net.meta_learner.forget_gate.bias.add_(3)
            net.meta_learner.input_gate.bias.sub_(2)
    return net


def some_episodes(count: int = 2, shots: int = 2, queries: int = 2) -> Episodes:
    """Six support images an episode by default: batches of four leave a smaller second one."""

    def side(each: int) -> tuple[Tensor, Tensor]:
        labels = torch.stack(
            [torch.arange(WAYS).repeat(each)[torch.randperm(WAYS * each)] for _ in range(count)]
        )
        return torch.randn(count, WAYS * each, 1, SIZE, SIZE, dtype=torch.float64), labels

    return Episodes(*side(shots), *side(queries), WAYS)


def support_batches(episodes: Episodes, episode: int, size: int) -> list[tuple[Tensor, Tensor]]:
    images, labels = episodes.support[episode], episodes.support_labels[episode]
    return [(images[at : at + size], labels[at : at + size]) for at in range(0, len(labels), size)]


def descended(module: nn.Module, batches: list[tuple[Tensor, Tensor]], rate: float) -> nn.Module:
    """A copy of the module after steps of PyTorch's own SGD."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()
    return module


# The meta-learner


def test_first_gates() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        meta = MetaLearner(20)
        assert 4 <= meta.forget_gate.bias.item() <= 5
        assert -5 <= meta.input_gate.bias.item() <= -4
        assert max(gate.weight.abs().max().item() for gate in (meta.forget_gate, meta.input_gate)) <= 0.01


def step_of_one(
    meta: MetaLearner, theta: Tensor, loss: Tensor, gradient: Tensor, state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One step for a single coordinate by the equations; all are of shape (), but for h and c."""
    hidden, memory, i, f = state
    cell = meta.recurrent
    seen = torch.cat([log_and_sign(gradient, 10), log_and_sign(loss, 10)])
    raw = cell.weight_ih @ seen + cell.bias_ih + cell.weight_hh @ hidden + cell.bias_hh
    keep_new, keep_old, candidate, emit = raw.view(4, -1)
    memory = torch.sigmoid(keep_old) * memory + torch.sigmoid(keep_new) * torch.tanh(candidate)
    hidden = torch.sigmoid(emit) * torch.tanh(memory)
    i_next = (
        meta.input_gate.weight[0] @ torch.cat([hidden, torch.stack([theta, i])]) + meta.input_gate.bias[0]
    )
    f_next = (
        meta.forget_gate.weight[0] @ torch.cat([hidden, torch.stack([theta, f])]) + meta.forget_gate.bias[0]
    )
    theta = torch.sigmoid(f_next) * theta - torch.sigmoid(i_next) * gradient
    return theta, [hidden, memory, i_next, f_next]


def fresh_state() -> list[Tensor]:
    zeros = torch.zeros(2, HIDDEN, dtype=torch.float64)
    nothing = torch.zeros((), dtype=torch.float64)
    return [zeros[0], zeros[1], nothing, nothing]


def lively_meta() -> MetaLearner:
    return net_of(Smooth()).meta_learner


def some_steps(count: int, coordinates: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """θ_0, losses and gradients of every size."""
    theta = torch.randn(count, coordinates, dtype=torch.float64)
    losses = torch.rand(steps, count, dtype=torch.float64) * 2
    sizes = 10 ** torch.empty(steps, count, coordinates, dtype=torch.float64).uniform_(-7, 1)
    return theta, losses, sizes * torch.randn_like(sizes).sign()


def run(
    meta: MetaLearner, theta: Tensor, losses: Tensor, gradients: Tensor
) -> tuple[list[Tensor], MetaState]:
    state = meta.start(theta)
    path = []
    for loss, gradient in zip(losses, gradients, strict=True):
        theta, state = meta(theta, loss, gradient, state)
        path.append(theta)
    return path, state


def test_both_layers_against_a_loop_over_coordinates() -> None:
    meta = lively_meta()
    start, losses, gradients = some_steps(2, 5, 4)
    path, state = run(meta, start, losses, gradients)
    for episode in range(2):
        for coordinate in range(5):
            theta, own = start[episode, coordinate], fresh_state()
            for step in range(4):
                theta, own = step_of_one(
                    meta, theta, losses[step, episode], gradients[step, episode, coordinate], own
                )
                torch.testing.assert_close(path[step][episode, coordinate], theta, rtol=1e-12, atol=1e-12)
            row = episode * 5 + coordinate
            got = [state.hidden[row], state.memory[row]]
            got += [state.input_gate[episode, coordinate], state.forget_gate[episode, coordinate]]
            torch.testing.assert_close(got, own, rtol=1e-12, atol=1e-12)


def test_coordinates_do_not_see_each_other() -> None:
    meta = lively_meta()
    theta, losses, gradients = some_steps(2, 7, 3)
    path, _ = run(meta, theta, losses, gradients)
    order = torch.randperm(7)
    permuted, _ = run(meta, theta[:, order], losses, gradients[..., order])
    torch.testing.assert_close(permuted[-1], path[-1][:, order], rtol=1e-12, atol=1e-12)
    gradients[..., 0] += 1
    other, _ = run(meta, theta, losses, gradients)
    torch.testing.assert_close(other[-1][:, 1:], path[-1][:, 1:], rtol=0, atol=0)


# Adaptation


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_gates_held_open_and_at_a_rate_give_sgd(rate: float) -> None:
    net = net_of(Conv(), epochs=3)
    with torch.no_grad():
        for gate, bias in (
            (net.meta_learner.forget_gate, 50.0),
            (net.meta_learner.input_gate, math.log(rate / (1 - rate))),
        ):
            gate.weight.zero_()
            gate.bias.fill_(bias)
    episodes = some_episodes()
    adapted, compared = net.adapt(episodes), net.descend(episodes, rate, 6)
    for episode in range(2):
        plain = descended(net.classifier, 3 * support_batches(episodes, episode, 4), rate)
        wanted = dict(plain.named_parameters())
        for found in (adapted, compared):
            got = {name: tensor[episode] for name, tensor in found.items()}
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_plain_sgd_stops_within_a_pass() -> None:
    net, episodes = net_of(Conv()), some_episodes(1)
    plain = descended(net.classifier, (2 * support_batches(episodes, 0, 4))[:3], 0.3)
    got = {name: tensor[0] for name, tensor in net.descend(episodes, 0.3, 3).items()}
    torch.testing.assert_close(got, dict(plain.named_parameters()), rtol=1e-10, atol=1e-12)


def reference_gradient(net: LstmMetaNet, episodes: Episodes, constants: bool) -> dict[str, Tensor]:
    """The query loss's gradient, episode by episode and step by step; ∇_t and L_t are constants or not."""
    named = dict(net.classifier.named_parameters())
    meta = net.meta_learner
    total = torch.zeros((), dtype=torch.float64)
    for episode in range(len(episodes)):
        theta = torch.cat([p.flatten() for p in named.values()])

        def loss_at(theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            sizes = [p.numel() for p in named.values()]
            params = {
                name: piece.view(p.shape)
                for (name, p), piece in zip(named.items(), theta.split(sizes), strict=True)
            }
            return F.cross_entropy(torch.func.functional_call(net.classifier, params, (images,)), labels)

        states = [fresh_state() for _ in theta]
        for images, labels in net.inner_epochs * support_batches(episodes, episode, net.inner_batch_size):
            point = theta.detach().requires_grad_() if constants else theta
            loss = loss_at(point, images, labels)
            (gradient,) = torch.autograd.grad(loss, point, create_graph=not constants)
            if constants:
                loss = loss.detach()
            moved = [
                step_of_one(meta, *own, state)
                for *own, state in zip(theta, loss.expand_as(theta), gradient, states, strict=True)
            ]
            theta, states = torch.stack([new for new, _ in moved]), [state for _, state in moved]
        total = total + loss_at(theta, episodes.query[episode], episodes.query_labels[episode])
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total / len(episodes), parameters)
    return dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize("backbone", [Smooth, Conv])
def test_gradients_and_losses_count_as_constants(backbone: type[Backbone]) -> None:
    net, episodes = net_of(backbone()), some_episodes()
    net.loss(episodes).backward()
    got = {name: p.grad for name, p in net.named_parameters()}
    wanted = reference_gradient(net, episodes, constants=True)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11)


def test_second_derivatives_would_be_seen() -> None:
    net, episodes = net_of(Smooth()), some_episodes(1)
    first, second = (reference_gradient(net, episodes, constants) for constants in (True, False))
    name = "classifier.body.layers.1.weight"
    assert (first[name] - second[name]).norm() > 0.01 * first[name].norm()


def test_gradient_reaches_every_parameter() -> None:
    net = net_of(Smooth(), lively=False)
    net.loss(some_episodes()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_episodes_together_are_the_same_as_one_by_one() -> None:
    net, episodes = net_of(Conv()), some_episodes(3)
    one_by_one = torch.cat([net.scores(episodes[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net.scores(episodes), one_by_one, rtol=1e-10, atol=1e-12)


# Scores


def other_queries(episodes: Episodes) -> Episodes:
    """All queries but the first of each episode are others."""
    query = torch.randn_like(episodes.query)
    query[:, 0] = episodes.query[:, 0]
    return Episodes(episodes.support, episodes.support_labels, query, episodes.query_labels, episodes.ways)


def scores_of(learner: LstmMetaLearner, episodes: Episodes, way: str, transductive: bool) -> Tensor:
    if way == "sgd":
        return learner.sgd_scores(episodes, 0.3, 4, transductive)
    return learner.scores(episodes, transductive)


@pytest.mark.parametrize("way", ["meta", "sgd"])
def test_inductive_scores_do_not_depend_on_other_queries(way: str) -> None:
    learner, episodes = LstmMetaLearner(net_of(Conv())), some_episodes()
    before = {tr: scores_of(learner, episodes, way, tr) for tr in (False, True)}
    after = {tr: scores_of(learner, other_queries(episodes), way, tr) for tr in (False, True)}
    torch.testing.assert_close(after[False][:, 0], before[False][:, 0], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(after[True][:, 0], before[True][:, 0], rtol=1e-3)
    assert not before[False].requires_grad
    torch.testing.assert_close(before[False].exp().sum(-1), torch.ones(2, 6, dtype=torch.float64))


def test_scores_are_those_of_the_adapted_classifier() -> None:
    net, episodes = net_of(Conv()), some_episodes()
    learner = LstmMetaLearner(net)
    inductive, transductive = (learner.sgd_scores(episodes, 0.3, 4, tr) for tr in (False, True))
    for episode in range(2):
        plain = descended(net.classifier, 2 * support_batches(episodes, episode, 4), 0.3)
        query = episodes.query[episode]
        torch.testing.assert_close(transductive[episode], plain(query).log_softmax(-1).detach())
        for number in range(len(query)):
            batch = torch.cat([episodes.support[episode], query[number : number + 1]])
            wanted = plain(batch)[-1].log_softmax(-1).detach()
            torch.testing.assert_close(inductive[episode, number], wanted)


def test_scores_leave_the_network_as_it_was() -> None:
    net, episodes = net_of(Conv()), some_episodes()
    before = copy.deepcopy(net.state_dict())
    learner = LstmMetaLearner(net)
    for transductive in (False, True):
        learner.scores(episodes, transductive)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in net.parameters())


# The method


def test_learns_the_toy_set() -> None:
    """From chance, a fifth, to well above it, on classes that training never saw."""
    splits, shape = toy_splits(), EpisodeShape(ways=5, shots=1, queries=5)
    method = LstmMeta("lstm_meta", inner_epochs=3, inner_batch_size=5, hidden=8)
    learner = method.build(Problem(1, 16, shape.ways), lambda *, running: Pooled())
    held_out = EpisodeStream(splits.test, shape, 40, 0).take()

    def accuracy() -> float:
        scores = learner.scores(held_out, transductive=False)
        return (scores.argmax(-1) == held_out.query_labels).float().mean().item()

    before = accuracy()
    stream = EpisodeStream(splits.train, shape, 2, 1)
    optimizer = torch.optim.Adam(learner.module.parameters(), lr=1e-2)
    for _ in range(40):
        task = learner.tasks(stream.take(), "episodes")[0]
        gradient = learner.strategy(learner.learner, task).gradient
        for name, parameter in learner.module.named_parameters():
            parameter.grad = gradient[name]
        nn.utils.clip_grad_norm_(learner.module.parameters(), 0.25)
        optimizer.step()
    assert before < 0.4
    assert accuracy() > 0.5


class Pooled(Backbone):
    """Two narrow blocks, in the width that a test can afford."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ConvBlock(1, 8, running=False), ConvBlock(8, 8, running=False))
        self.features = 8 * 4 * 4

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)
