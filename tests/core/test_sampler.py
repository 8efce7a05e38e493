"""Samplers: every pass a permutation, no repeats in a batch, a resumed stream the uninterrupted one."""

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.core.sampler import EpisodeSampler, IndexStream, SamplerState, derive_seed
from innerloop.core.task import FixedTask

SEEDS = st.integers(0, 2**63 - 1)
RECORDED_ORDER = [2, 0, 4, 1, 7, 5, 3, 6]
RECORDED_SEEDS: dict[tuple[int | str, ...], int] = {
    (0,): 3456079177858693020,
    ("tasks",): 299676310018069420,
    (42, "tasks"): 9193954955697486164,
    (42, "algebra", 3): 1499945618831460915,
    ("Übung", -1): 3533343728417059211,
}


@given(size=st.integers(1, 30), seed=SEEDS, passes=st.integers(1, 4))
def test_every_pass_is_a_permutation(size: int, seed: int, passes: int) -> None:
    stream = IndexStream(size, seed)
    for _ in range(passes):
        assert sorted(stream.take(1)[0] for _ in range(size)) == list(range(size))


@given(size=st.integers(1, 30), seed=SEEDS, counts=st.lists(st.integers(0, 40), max_size=12))
def test_no_index_twice_in_a_batch(size: int, seed: int, counts: list[int]) -> None:
    """A batch larger than the collection holds every index, none of them much more often than another."""
    stream = IndexStream(size, seed)
    for count in counts:
        batch = stream.take(count)
        assert len(batch) == count
        assert set(batch) <= set(range(size))
        if count <= size:
            assert len(set(batch)) == count
        times = [batch.count(index) for index in range(size)]
        assert max(times) - min(times) <= 2


@given(
    size=st.integers(1, 30),
    seed=SEEDS,
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    data=st.data(),
)
def test_a_resumed_stream_is_the_uninterrupted_one(
    size: int, seed: int, counts: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(counts)))
    whole, first, second = IndexStream(size, seed), IndexStream(size, seed), IndexStream(size, seed)
    wanted = [whole.take(count) for count in counts]
    got = [first.take(count) for count in counts[:cut]]
    second.take(data.draw(st.integers(0, 5)))  # wherever it was, the position is its whole state
    second.position = first.position
    got += [second.take(count) for count in counts[cut:]]
    assert got == wanted


def test_passes_and_seeds_differ() -> None:
    stream = IndexStream(20, seed=1)
    passes = [stream.take(20) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert IndexStream(20, seed=2).take(20) != passes[0]


def test_the_order_is_the_same_everywhere() -> None:
    """Recorded: a change would silently break the resuming of every saved run."""
    assert IndexStream(8, seed=42).take(8) == RECORDED_ORDER


def test_an_empty_collection_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        IndexStream(0, seed=1)


# Seeds


def test_derived_seeds_are_the_same_everywhere() -> None:
    assert {parts: derive_seed(*parts) for parts in RECORDED_SEEDS} == RECORDED_SEEDS


@example(parts=["\ud800"], other=["\udc80"])
@given(
    parts=st.lists(st.integers() | st.text(st.characters(min_codepoint=32)), min_size=1, max_size=4),
    other=st.lists(st.integers() | st.text(st.characters(min_codepoint=32)), min_size=1, max_size=4),
)
def test_derived_seeds_are_independent(parts: list[int | str], other: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert (seed == derive_seed(*other)) == (list(map(str, parts)) == list(map(str, other)))


def test_parts_are_kept_apart() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc") != derive_seed("abc")
    assert derive_seed(1, 23) != derive_seed(12, 3)


# Episodes


class Source:
    """Tasks whose name tells which draw they are."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self._stream = IndexStream(5, derive_seed(seed, name))

    def draw(self) -> FixedTask:
        return FixedTask(self.name, [self._stream.take(2)], self._stream.take(1))

    def state_dict(self) -> SamplerState:
        return {"position": self._stream.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._stream.position = state["position"]


def sampler(meta_batch_size: int, names: str = "abcd", seed: int = 3) -> EpisodeSampler:
    return EpisodeSampler([Source(name, seed) for name in names], meta_batch_size, seed)


def test_a_meta_batch_holds_different_sources_and_all_get_their_turn() -> None:
    episodes = sampler(2)
    for _ in range(3):
        names = [task.name for _ in range(2) for task in episodes.sample()]
        assert sorted(names) == list("abcd")


def test_a_meta_batch_may_be_larger_than_the_number_of_sources() -> None:
    tasks = sampler(8).sample()
    assert sorted(task.name for task in tasks) == sorted("aabbccdd")
    assert len({str(task) for task in tasks}) == 8


@given(meta_batch_size=st.integers(1, 9), before=st.integers(0, 5), after=st.integers(1, 5))
def test_a_resumed_sampler_is_the_uninterrupted_one(meta_batch_size: int, before: int, after: int) -> None:
    whole, first, second = sampler(meta_batch_size), sampler(meta_batch_size), sampler(meta_batch_size)
    wanted = [whole.sample() for _ in range(before + after)]
    got = [first.sample() for _ in range(before)]
    state = first.state_dict()
    assert all(isinstance(value, int) for value in state.values())
    second.sample()
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert got + [second.sample() for _ in range(after)] == wanted


def test_other_tasks_than_those_saved_are_refused() -> None:
    with pytest.raises(InputError, match="resume with the tasks it was trained on"):
        sampler(2, "abce").load_state_dict(sampler(2, "abcd").state_dict())
    with pytest.raises(InputError, match="resume with the tasks it was trained on"):
        sampler(2).load_state_dict({})


def test_bad_sources_are_refused() -> None:
    with pytest.raises(InputError, match="same name"):
        sampler(2, "aba")
    with pytest.raises(InputError, match="no task"):
        sampler(2, "")
