"""Prepared rows as the core's tasks: where episodes are drawn from, and how a few examples become one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.core.params import Params
from innerloop.core.sampler import IndexStream, SamplerState, derive_seed
from innerloop.core.task import Batch, Task
from innerloop.llm.data.rows import Row
from innerloop.llm.data.tokens import TokenBatch, TokenizedRow, Truncation, collate, tokenize
from innerloop.llm.loss import as_batch
from innerloop.llm.prefix import FrozenPrefix


@dataclass(frozen=True)
class Batcher:
    """Turns rows into batches.

    Args:
        tokenizer: of the model.
        device: where batches go.
        max_length: the most tokens of a row.
        truncation: what happens to longer rows.
        packed: lay rows end to end instead of padding them.
        sharing: packed rows hold what all of them begin with once.
        micro_tokens: the most tokens in a piece of a batch; ``None`` for no limit.
        append_eos: whether answers end with EOS, which is learned with them.
        prefix: knows the rows' states at the lowest adapted layer, where the layers below are frozen.
    """

    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    max_length: int = 1024
    truncation: Truncation = "error"
    packed: bool = False
    sharing: bool = False
    micro_tokens: int | None = None
    append_eos: bool = True
    prefix: FrozenPrefix | None = None

    def tokenize(self, rows: Sequence[Row], where: str) -> list[TokenizedRow]:
        """The rows as tokens. An error says which row it was."""
        return [self.tokenize_row(row, f"{where}, row {number}") for number, row in enumerate(rows, start=1)]

    def tokenize_row(self, row: Row, where: str) -> TokenizedRow:
        """One row as tokens; ``where`` it stands begins the line of an error."""
        try:
            return tokenize(row, self.tokenizer, self.max_length, self.truncation, append_eos=self.append_eos)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def batch(self, rows: Sequence[TokenizedRow]) -> Batch:
        """One batch, in pieces if a piece's size is limited."""
        limit, hidden = self.micro_tokens, self._hidden(rows)
        parts = collate(rows, self._pad_id, self.packed, limit, self.sharing, hidden)
        return as_batch(parts, self.device)

    def in_order(self, rows: Sequence[TokenizedRow]) -> TokenBatch:
        """One piece, whose rows stay in order."""
        hidden = self._hidden(rows)
        (batch,) = collate(rows, self._pad_id, self.packed, sharing=self.sharing, hidden=hidden)
        return batch.to(self.device)

    def _hidden(self, rows: Sequence[TokenizedRow]) -> Mapping[TokenizedRow, Tensor] | None:
        return None if self.prefix is None else self.prefix.states(rows)

    @property
    def _pad_id(self) -> int:
        pad_id = self.tokenizer.pad_token_id
        return pad_id if isinstance(pad_id, int) else 0


class BalancedStream:
    """An endless shuffled stream of row indices that takes the classes in turn, where rows have classes.

    Args:
        labels: each row's class; balanced only if every row has one.
        seed: decides the order.
        shuffled: whether passes over a class are shuffled.
    """

    def __init__(self, labels: Sequence[str | None], seed: int, shuffled: bool = True) -> None:
        known = sorted({label for label in labels if label is not None})
        groups = [[i for i, label in enumerate(labels) if label == name] for name in known]
        if None in labels or not known:
            groups = [list(range(len(labels)))]
        self._groups = groups
        self._streams = [
            IndexStream(len(group), derive_seed(seed, i), shuffled) for i, group in enumerate(groups)
        ]
        self._turns = IndexStream(len(groups), derive_seed(seed, "turns"), shuffled)

    def take(self, count: int) -> list[int]:
        """The next ``count`` indices; classes differ in number by at most one within a batch."""
        share, rest = divmod(count, len(self._groups))
        extra = set(self._turns.take(rest))
        return [
            group[index]
            for number, (group, stream) in enumerate(zip(self._groups, self._streams, strict=True))
            for index in stream.take(share + (number in extra))
        ]

    def state_dict(self) -> SamplerState:
        """The positions of the streams."""
        positions = {f"{number}": stream.position for number, stream in enumerate(self._streams)}
        return {**positions, "turns": self._turns.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up saved positions."""
        for number, stream in enumerate(self._streams):
            stream.position = state[f"{number}"]
        self._turns.position = state["turns"]


class Pool:
    """A task's rows of one split, tokenised when they are first drawn.

    Rows that might be too long are tokenised at once, so that one that cannot be used is found before the
    training starts and not hours into it.

    Args:
        rows: at least one.
        batcher: tokenises.
        where: names the pool in errors.
    """

    def __init__(self, rows: Sequence[Row], batcher: Batcher, where: str) -> None:
        if not rows:
            raise InputError(
                f"{where}: there are no rows; prepare the task with more samples or leave it out"
            )
        self._rows, self._batcher, self._where = rows, batcher, where
        self._tokens: dict[int, TokenizedRow] = {}
        # A token is a byte of text at least, and what the chat template adds shows in any one row.
        template = len(self[0].input_ids)
        for index, row in enumerate(rows):
            size = sum(len(message.content.encode()) for message in row.messages)
            if template + size + 8 * len(row.messages) > batcher.max_length:
                self[index]

    def __getitem__(self, index: int) -> TokenizedRow:
        """A row's tokens."""
        if index not in self._tokens:
            where = f"{self._where}, row {index + 1}"
            self._tokens[index] = self._batcher.tokenize_row(self._rows[index], where)
        return self._tokens[index]


@dataclass(frozen=True)
class RowsTask:
    """A task whose rows are drawn already. Its batches are made when they are asked for.

    Args:
        name: the task's name.
        support_rows: the rows of each inner step.
        query_rows: the rows of the query batch.
        batcher: collates.
    """

    name: str
    support_rows: Sequence[Sequence[TokenizedRow]]
    query_rows: Sequence[TokenizedRow]
    batcher: Batcher

    def support(self, step: int, params: Params) -> Batch:  # noqa: ARG002
        """The support batch of this step. Steps past the last start over."""
        return self.batcher.batch(self.support_rows[step % len(self.support_rows)])

    def query(self, params: Params) -> Batch:  # noqa: ARG002
        """The query batch."""
        return self.batcher.batch(self.query_rows)


@dataclass(frozen=True)
class EpisodeShape:
    """How large an episode is.

    Args:
        inner_steps: support batches, one a step.
        inner_batch_size: rows of each.
        query_batch_size: rows of the query batch.
    """

    inner_steps: int
    inner_batch_size: int
    query_batch_size: int


class RowSource:
    """Draws episodes from one task's rows: a fresh support batch for every inner step, and a query batch.

    Args:
        name: the task's name.
        support: rows to adapt on.
        query: rows to be judged on.
        shape: of the episodes.
        batcher: tokenises and collates.
        seed: decides the order of rows.
        shuffled: whether rows are shuffled.
    """

    def __init__(
        self,
        name: str,
        support: Sequence[Row],
        query: Sequence[Row],
        shape: EpisodeShape,
        batcher: Batcher,
        seed: int,
        shuffled: bool = True,
    ) -> None:
        self._name, self._shape, self._batcher = name, shape, batcher
        self._support = Pool(support, batcher, f"task '{name}', support")
        self._query = Pool(query, batcher, f"task '{name}', query")
        self._support_stream, self._query_stream = (
            BalancedStream([row.label for row in rows], derive_seed(seed, name, part), shuffled)
            for part, rows in (("support", support), ("query", query))
        )

    @property
    def name(self) -> str:
        """The task's name."""
        return self._name

    def draw(self) -> Task:
        """The next episode."""
        shape = self._shape
        support = [self._support_stream.take(shape.inner_batch_size) for _ in range(shape.inner_steps)]
        query = self._query_stream.take(shape.query_batch_size)
        return RowsTask(
            self.name,
            [[self._support[index] for index in indices] for indices in support],
            [self._query[index] for index in query],
            self._batcher,
        )

    def state_dict(self) -> SamplerState:
        """The positions in both pools."""
        support, query = self._support_stream.state_dict(), self._query_stream.state_dict()
        return {
            **{f"support/{key}": value for key, value in support.items()},
            **{f"query/{key}": value for key, value in query.items()},
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up saved positions."""
        for part, stream in (("support/", self._support_stream), ("query/", self._query_stream)):
            stream.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})


def shots_task(
    name: str, shots: Sequence[TokenizedRow], steps: int, batch_size: int, batcher: Batcher, seed: int
) -> Task:
    """A new task known by a few examples only: shuffled passes over them, a batch a step, and no query.

    Args:
        name: the task's name.
        shots: the examples.
        steps: inner steps.
        batch_size: examples a step; all of them at once if they are fewer.
        batcher: collates.
        seed: decides the order.
    """
    if not shots:
        raise InputError(f"task '{name}': adaptation needs at least one example")
    stream = IndexStream(len(shots), derive_seed(seed, name, "shots"))
    size = min(batch_size, len(shots))
    rows = [[shots[i] for i in stream.take(size)] for _ in range(steps)]
    return RowsTask(name, rows, rows[-1], batcher)
