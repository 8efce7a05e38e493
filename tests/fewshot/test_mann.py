"""The memory of MANN against plain loops over one episode, and what the network may and may not know when."""

import math

import pytest
import torch
from torch import Tensor

from fewshot.mann_reference import DECAY, HIDDEN, READS, SIZE, SLOTS, WAYS, WIDTH, Reference, follow
from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import Backbone, Conv4
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import EpisodicLearner
from innerloop.fewshot.learners.mann import (
    LeastRecentlyUsedAccess,
    Mann,
    MannLearner,
    MannNet,
    Pixels,
    State,
    Writes,
    accuracy_by_instance,
    least_used,
    sequences,
)
from innerloop.fewshot.learners.method import Problem


@pytest.fixture(autouse=True)
def double() -> None:
    torch.set_default_dtype(torch.float64)


def fresh(count: int) -> State:
    shapes = ((HIDDEN,), (HIDDEN,), (SLOTS, WIDTH), (SLOTS,), (READS, SLOTS), (READS, WIDTH))
    return State(*(torch.zeros(count, *shape) for shape in shapes))


def make_net(encoder: Backbone | None = None, writes: Writes = "contents") -> MannNet:
    return MannNet(encoder or Pixels(1, SIZE), WAYS, HIDDEN, SLOTS, WIDTH, READS, DECAY, 3.0, -2.0, writes)


def make_sequences(count: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, length, 1, SIZE, SIZE), torch.randint(WAYS, (count, length))


def make_episodes(count: int = 2, support: int = 4, queries: int = 5, size: int = SIZE) -> Episodes:
    return Episodes(
        torch.randn(count, support, 1, size, size),
        torch.randint(WAYS, (count, support)),
        torch.randn(count, queries, 1, size, size),
        torch.randint(WAYS, (count, queries)),
        WAYS,
    )


# The memory


@pytest.mark.parametrize("strength", [1.0, 4.0])
@pytest.mark.parametrize("own_slots", [False, True])
def test_memory_is_the_references_step_by_step(own_slots: bool, strength: float) -> None:
    episodes, steps = 3, 7  # more writes than there are slots, so that slots are used again
    access = LeastRecentlyUsedAccess(DECAY, own_slots, strength)
    state, references = fresh(episodes), [Reference(own_slots, strength) for _ in range(episodes)]
    emptied = set()
    for _ in range(steps):
        keys, contents = torch.randn(2, episodes, READS, WIDTH)
        gates = torch.rand(episodes, READS)
        marks = least_used(state.usage, READS)
        for number, reference in enumerate(references):
            assert marks[number].argmax(-1).tolist() == reference.least_used()
            emptied.add(reference.least_used()[0])
            reference.step(keys[number].tolist(), contents[number].tolist(), gates[number].tolist())
        state = access(state, keys, contents, gates[..., None])
        for ours, theirs in (
            (state.memory, [reference.memory for reference in references]),
            (state.usage, [reference.usage for reference in references]),
            (state.weights, [reference.weights for reference in references]),
            (state.reads, [reference.reads for reference in references]),
        ):
            torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-12, atol=1e-12)
    assert len(emptied) > 2


def used_state() -> State:
    """A memory in use: what was read lies in slots 2 and 5, the least used slots are 6 and then 1."""
    weights = torch.zeros(1, READS, SLOTS)
    weights[0, 0, 2] = weights[0, 1, 5] = 1
    usage = torch.tensor([[3.0, 0.5, 4.0, 2.0, 5.0, 6.0, 0.1, 1.0]])
    return fresh(1)._replace(memory=torch.randn(1, SLOTS, WIDTH), usage=usage, weights=weights)


def paper_access() -> LeastRecentlyUsedAccess:
    return LeastRecentlyUsedAccess(DECAY, own_slots=False)


def test_least_used_marks_the_smallest_usages_and_the_first_of_equal_ones() -> None:
    usage = torch.tensor([[3.0, 0.5, 2.0, 0.1], [1.0, 0.0, 0.0, 0.0]])
    assert least_used(usage, 2).tolist() == [[[0, 0, 0, 1], [0, 1, 0, 0]], [[0, 1, 0, 0], [0, 0, 1, 0]]]


@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0])
def test_only_the_least_used_slot_is_emptied_before_the_write(gate: float) -> None:
    state, keys = used_state(), torch.randn(1, READS, WIDTH)
    after = paper_access()(state, keys, keys, torch.full((1, READS, 1), gate))
    torch.testing.assert_close(after.memory[0, 6], (1 - gate) * keys[0].sum(0))
    torch.testing.assert_close(after.memory[0, 1], state.memory[0, 1] + (1 - gate) * keys[0].sum(0))
    untouched = [0, 3, 4, 7]
    assert torch.equal(after.memory[0, untouched], state.memory[0, untouched])


def test_an_open_gate_writes_only_where_was_read() -> None:
    state, keys = used_state(), torch.randn(1, READS, WIDTH)
    after = paper_access()(state, keys, keys, torch.ones(1, READS, 1))
    wanted = state.memory.clone()
    wanted[0, 6] = 0  # emptied all the same
    wanted[0, 2] += keys[0, 0]
    wanted[0, 5] += keys[0, 1]
    torch.testing.assert_close(after.memory, wanted)


def test_a_closed_gate_writes_only_to_the_least_used_slots() -> None:
    state, keys = used_state(), torch.randn(1, READS, WIDTH)
    after = paper_access()(state, keys, keys, torch.zeros(1, READS, 1))
    changed = (after.memory != state.memory).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [1, 6]


def test_heads_write_contents_to_slots_of_their_own() -> None:
    state, (keys, contents) = used_state(), torch.randn(2, 1, READS, WIDTH)
    after = LeastRecentlyUsedAccess(DECAY, own_slots=True)(state, keys, contents, torch.zeros(1, READS, 1))
    torch.testing.assert_close(after.memory[0, 6], contents[0, 0])  # emptied before
    torch.testing.assert_close(after.memory[0, 1], state.memory[0, 1] + contents[0, 1])


def test_each_head_has_its_own_gate() -> None:
    state, keys = used_state(), torch.randn(1, READS, WIDTH)
    after = paper_access()(state, keys, keys, torch.tensor([[[1.0], [0.0]]]))
    torch.testing.assert_close(after.memory[0, 2], state.memory[0, 2] + keys[0, 0])
    torch.testing.assert_close(after.memory[0, 6], keys[0, 1])
    assert torch.equal(after.memory[0, 5], state.memory[0, 5])


def test_gradient_through_an_empty_memory_is_finite_in_single_precision() -> None:
    """A cosine has no slope at nothing, and the first steps read a memory that is all but empty."""
    torch.set_default_dtype(torch.float32)
    net = make_net()
    net.instance_logits(*make_sequences(2, 6), WAYS).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


# The network


@pytest.mark.parametrize("writes", ["keys", "contents"])
def test_logits_are_the_references(writes: Writes) -> None:
    net, (images, labels) = make_net(writes=writes), make_sequences(2, 7)
    logits = net.instance_logits(images, labels, WAYS)
    wanted = [follow(net, images[e], labels[e].tolist()) for e in range(2)]
    torch.testing.assert_close(logits, torch.tensor(wanted), rtol=1e-10, atol=1e-12)


def test_scores_are_those_of_the_support_sequence_with_one_query_at_its_end() -> None:
    net, episodes = make_net(), make_episodes()
    scores = net.scores(episodes)
    assert scores.shape == (2, 5, WAYS)
    for e in range(2):
        for q in range(5):
            images = torch.cat([episodes.support[e], episodes.query[e, q : q + 1]])
            wanted = follow(net, images, [*episodes.support_labels[e].tolist(), 0])[-1]
            torch.testing.assert_close(scores[e, q], torch.tensor(wanted), rtol=1e-10, atol=1e-12)


def test_episodes_together_are_episodes_one_by_one() -> None:
    net, episodes, (images, labels) = make_net(), make_episodes(4), make_sequences(4, 6)
    torch.testing.assert_close(
        net.scores(episodes), torch.cat([net.scores(episodes[e : e + 1]) for e in range(4)])
    )
    torch.testing.assert_close(
        net.instance_logits(images, labels, WAYS),
        torch.cat([net.instance_logits(images[e : e + 1], labels[e : e + 1], WAYS) for e in range(4)]),
    )


def test_a_label_is_known_one_image_later() -> None:
    net, (images, labels) = make_net(), make_sequences(1, 6)
    changed = labels.clone()
    changed[0, 2] = (labels[0, 2] + 1) % WAYS
    before, after = net.instance_logits(images, labels, WAYS), net.instance_logits(images, changed, WAYS)
    assert torch.equal(before[:, :3], after[:, :3])
    assert bool((before[:, 3:] != after[:, 3:]).any(-1).all())


def test_the_last_support_label_reaches_the_queries() -> None:
    net, episodes = make_net(), make_episodes()
    before = net.scores(episodes)
    episodes.support_labels[:, -1] = (episodes.support_labels[:, -1] + 1) % WAYS
    assert bool((net.scores(episodes) != before).any(-1).all())


def test_no_query_depends_on_another() -> None:
    """Nor on its own label; with a backbone whose batch norm could betray them."""
    learner = EpisodicLearner(make_net(Conv4(1, 16, 4)))
    episodes = make_episodes(size=16)
    before = learner.scores(episodes, transductive=False)
    episodes.query[:, 1:] += 1
    episodes.query_labels[:] = (episodes.query_labels + 1) % WAYS
    after = learner.scores(episodes, transductive=False)
    torch.testing.assert_close(before[:, 0], after[:, 0], rtol=1e-12, atol=1e-12)
    assert bool((before[:, 1:] != after[:, 1:]).any(-1).all())
    torch.testing.assert_close(before.exp().sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize("what", ["loss", "scores"])
def test_gradient_reaches_every_parameter(what: str) -> None:
    net, episodes = make_net(Conv4(1, 16, 4)), make_episodes(size=16)
    (net.loss(episodes) if what == "loss" else net.scores(episodes).square().sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_gradient_is_that_of_finite_differences() -> None:
    """Through time, memory and usage; no order of usages is close enough to be changed by the difference."""
    net, (images, labels) = make_net(), make_sequences(1, 5)
    parameters = tuple(net.parameters())

    def summed(*_: Tensor) -> Tensor:
        return net.instance_logits(images, labels, WAYS).square().sum()

    assert torch.autograd.gradcheck(summed, parameters, eps=1e-6, atol=1e-6, fast_mode=True)


# Training and testing


def test_loss_is_the_cross_entropy_over_each_episodes_own_order() -> None:
    net, episodes = make_net(), make_episodes(3)
    torch.manual_seed(5)
    loss = net.loss(episodes).item()
    torch.manual_seed(5)
    order = torch.rand(3, 9).argsort(-1)
    assert len({tuple(row) for row in order.tolist()}) == 3
    surprise = []
    for e in range(3):
        images = torch.cat([episodes.support[e], episodes.query[e]])[order[e]]
        labels = torch.cat([episodes.support_labels[e], episodes.query_labels[e]])[order[e]].tolist()
        for row, label in zip(follow(net, images, labels), labels, strict=True):
            surprise.append(math.log(sum(math.exp(number) for number in row)) - row[label])
    assert loss == pytest.approx(sum(surprise) / len(surprise), rel=1e-10)
    assert net.loss(episodes).item() != loss  # another order


def test_instance_accuracy_is_a_hand_count() -> None:
    labels = torch.tensor([[0, 1, 0, 2, 2, 1], [2, 2, 0, 1, 0, 1]])
    said = torch.tensor([[0, 0, 0, 1, 2, 1], [1, 2, 0, 2, 1, 1]])
    found = accuracy_by_instance(said == labels, labels, WAYS)
    # First images: 0 right, 1 wrong, 2 wrong; 2 wrong, 0 right, 1 wrong.
    # Second: all three right; 2 right, 0 wrong, 1 right.
    assert found.tolist() == [pytest.approx([1 / 3, 1]), pytest.approx([1 / 3, 2 / 3])]


def test_instance_accuracy_reads_the_sequence_that_the_generator_draws() -> None:
    net, episodes = make_net().train(), make_episodes(3)
    learner = MannLearner(net, fixed_ways=True)
    found = learner.instance_accuracy(episodes, torch.Generator().manual_seed(4))
    assert net.training
    images, labels = sequences(episodes, torch.Generator().manual_seed(4))
    assert not torch.equal(labels, sequences(episodes, torch.Generator().manual_seed(5))[1])
    net.eval()
    hits = net.instance_logits(images, labels, WAYS).argmax(-1) == labels
    assert torch.equal(found, accuracy_by_instance(hits, labels, WAYS))
    assert found.shape == (3, 3)


def settings(**changed: object) -> Mann:
    values = {
        "name": "mann",
        "encoder": "backbone",
        "hidden": HIDDEN,
        "memory_slots": SLOTS,
        "memory_width": WIDTH,
        "reads": READS,
        "usage_decay": DECAY,
        "key_strength": 1.0,
        "gate_bias": 0.0,
        "writes": "contents",
    }
    return Mann(**(values | changed))  # type: ignore[arg-type]


def conv4(*, running: bool) -> Backbone:
    return Conv4(1, 16, 4, running=running)


@pytest.mark.parametrize(("encoder", "kind"), [("backbone", Conv4), ("pixels", Pixels)])
def test_settings_build_the_learner(encoder: str, kind: type[Backbone]) -> None:
    learner = settings(encoder=encoder).build(Problem(channels=1, size=16, ways=WAYS), conv4)
    assert learner.fixed_ways
    assert isinstance(learner.net, MannNet)
    assert isinstance(learner.net.encoder, kind)
    assert learner.net.access.decay == DECAY
    assert learner.scores(make_episodes(size=16), transductive=True).shape == (2, 5, WAYS)


def test_pixels_are_all_channels() -> None:
    encoder = Pixels(3, 5)
    assert encoder(torch.zeros(2, 3, 5, 5)).shape == (2, encoder.features)


def test_more_heads_than_slots_are_refused() -> None:
    with pytest.raises(InputError, match="9 heads cannot write to 8 memory slots"):
        settings(reads=9).build(Problem(channels=1, size=16, ways=WAYS), conv4)
