"""A batch is the same rows however it is laid out, and its pieces share out its targets exactly."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.llm.data.rows import make_row
from innerloop.llm.data.tokens import NoTargetError, TokenBatch, TokenizedRow, collate, tokenize
from tiny_llama import tiny_tokenizer

PAD = 999
Target = tuple[int, int, tuple[int, ...]]


def a_row(length: int, first_target: int) -> TokenizedRow:
    return TokenizedRow(tuple(range(length)), tuple(index >= first_target for index in range(length)))


rows_of_any_length = st.lists(
    st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), min_size=1, max_size=8
).map(
    # ids are unique over the batch, so that a target says where it comes from
    lambda shapes: [
        TokenizedRow(
            tuple(range(100 * index, 100 * index + length)), tuple(i >= first for i in range(length))
        )
        for index, (length, first) in enumerate(shapes)
    ]
)


def targets_of(batch: TokenBatch) -> set[Target]:
    """Each target as its token, its position and the tokens of its row before it."""
    found: set[Target] = set()
    for line in range(len(batch.targets)):
        for index, weight in zip(batch.targets[line], batch.target_weights[line], strict=True):
            if weight == 0:
                assert index == 0
                continue
            assert index > 0
            segment = batch.segment_ids[line]
            assert segment[index] == segment[index - 1] > 0, "the token before a target is of the same row"
            own = (segment == segment[index]) & (torch.arange(len(segment)) < index)
            context = tuple(batch.input_ids[line][own].tolist())
            position = int(batch.position_ids[line, index])
            assert position == len(context)
            found.add((int(batch.input_ids[line, index]), position, context))
    return found


def wanted_targets(rows: list[TokenizedRow]) -> set[Target]:
    return {
        (row.input_ids[index], index, row.input_ids[:index])
        for row in rows
        for index, target in enumerate(row.response_mask)
        if target
    }


def test_padding_goes_to_the_longest_row_and_no_further() -> None:
    (batch,) = collate([a_row(5, 3), a_row(3, 2)], PAD)
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, PAD, PAD]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.targets.tolist() == [[3, 4], [2, 0]]
    assert batch.target_weights.tolist() == [[1, 1], [1, 0]]
    assert batch.normalizer == 3
    assert batch.token_count == 8


def test_packed_rows_lie_end_to_end() -> None:
    (batch,) = collate([a_row(3, 2), a_row(2, 1)], PAD, packed=True)
    assert batch.input_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2]]
    assert batch.targets.tolist() == [[2, 4]]
    assert batch.target_weights.tolist() == [[1, 1]]


@pytest.mark.parametrize("packed", [False, True])
def test_dtypes_and_devices(packed: bool) -> None:
    (batch,) = collate([a_row(5, 3), a_row(3, 2)], PAD, packed)
    moved = batch.to("meta")
    for name in ("input_ids", "position_ids", "segment_ids", "targets"):
        assert getattr(batch, name).dtype == torch.int64
        assert getattr(moved, name).device.type == "meta"
    assert batch.target_weights.dtype == batch.normalizer.dtype == torch.float32
    assert batch.normalizer.shape == ()


@settings(deadline=None, max_examples=60)
@given(rows=rows_of_any_length, packed=st.booleans(), spare=st.integers(0, 40))
def test_pieces_share_out_the_targets_of_the_batch(
    rows: list[TokenizedRow], packed: bool, spare: int
) -> None:
    budget = max(len(row.input_ids) for row in rows) + spare
    pieces = collate(rows, PAD, packed, budget)
    found = [targets_of(piece) for piece in pieces]
    assert set().union(*found) == wanted_targets(rows)
    assert sum(map(len, found)) == len(wanted_targets(rows)), "no target in two pieces"
    for piece in pieces:
        assert piece.input_ids.numel() <= budget
        assert piece.normalizer == len(wanted_targets(rows)), "of the whole batch"
    assert sum(piece.token_count for piece in pieces) == sum(len(row.input_ids) for row in rows)
    if not packed:
        lengths = [piece.input_ids.shape[1] for piece in pieces]
        assert all(longer >= shorter for longer, shorter in pairwise(lengths)), "rows of like length together"


def test_a_row_larger_than_a_piece_is_an_error() -> None:
    with pytest.raises(InputError, match="12 tokens does not fit into micro-batches of 10"):
        collate([a_row(12, 1)], PAD, micro_tokens=10)


def test_no_rows_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        collate([], PAD)


@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(st.tuples(st.text("ab", min_size=1), st.text("xyz", min_size=1)), min_size=1, max_size=4),
    max_length=st.integers(2, 80),
    truncation=st.sampled_from(["left", "right"]),
)
def test_truncation_is_alike_padded_and_packed(
    texts: list[tuple[str, str]], max_length: int, truncation: str
) -> None:
    tokenizer = tiny_tokenizer()
    try:
        rows = [tokenize(make_row(*pair), tokenizer, max_length, truncation) for pair in texts]
    except NoTargetError:
        return
    (padded,), (packed,) = (collate(rows, PAD, mode) for mode in (False, True))
    assert targets_of(padded) == targets_of(packed)
    assert padded.normalizer == packed.normalizer
    assert padded.token_count == packed.token_count
