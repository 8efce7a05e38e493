"""Cutting a batch of token rows into parts for the processes that share it."""

from dataclasses import replace

import torch
from torch import Tensor

from innerloop.llm.data.tokens import TokenBatch


def part_of(batch: TokenBatch, place: int, count: int) -> TokenBatch:
    """Every ``count``-th row of a batch from row ``place`` on, padded or packed as it was.

    The losses of all parts add up to the batch's: each is divided by the targets of the whole. A part without
    a row is one token with no weight, since its process must run the model all the same.

    Args:
        batch: the batch, or a piece of one; packed if it is a single line.
        place: the part, from 0.
        count: parts in all.
    """
    if count == 1:
        return batch
    part = _of_packed(batch, place, count) if len(batch.input_ids) == 1 else _of_padded(batch, place, count)
    return _nothing(batch) if part is None else part


def _of_padded(batch: TokenBatch, place: int, count: int) -> TokenBatch | None:
    if place >= len(batch.input_ids):
        return None
    length = _longest(batch.segment_ids[place::count])
    width = _longest(batch.target_weights[place::count])
    return replace(
        batch,
        input_ids=batch.input_ids[place::count, :length],
        position_ids=batch.position_ids[place::count, :length],
        segment_ids=batch.segment_ids[place::count, :length],
        targets=batch.targets[place::count, :width],
        target_weights=batch.target_weights[place::count, :width],
        hidden=None if batch.hidden is None else batch.hidden[place::count, :length],
    )


def _of_packed(batch: TokenBatch, place: int, count: int) -> TokenBatch | None:
    segments = batch.segment_ids[0]
    own = (segments > 0) & ((segments - 1) % count == place)
    if not bool(own.any()):
        return None
    # The beginning that all rows share stands in the batch's first, and goes into the first of each part.
    beginning = int(batch.shared) if place else 0
    columns = torch.cat([torch.arange(beginning, device=own.device), own.nonzero().flatten()])
    segment_ids = segments[columns].index_fill(0, torch.arange(beginning, device=own.device), place + 1)
    moved = own.cumsum(0) - 1 + beginning
    targets = own[batch.targets[0]]
    return replace(
        batch,
        input_ids=batch.input_ids[:, columns],
        position_ids=batch.position_ids[:, columns],
        segment_ids=segment_ids[None],
        targets=moved[batch.targets[0, targets]][None],
        target_weights=batch.target_weights[:, targets],
        hidden=None if batch.hidden is None else batch.hidden[:, columns],
    )


def _nothing(batch: TokenBatch) -> TokenBatch:
    return replace(
        batch,
        input_ids=batch.input_ids[:1, :1],
        position_ids=torch.zeros_like(batch.position_ids[:1, :1]),
        segment_ids=torch.ones_like(batch.segment_ids[:1, :1]),
        targets=torch.zeros_like(batch.targets[:1, :1]),
        target_weights=torch.zeros_like(batch.target_weights[:1, :1]),
        shared=torch.zeros_like(batch.shared),
        hidden=None if batch.hidden is None else batch.hidden[:1, :1],
    )


def _longest(filled: Tensor) -> int:
    """The most columns that a row fills."""
    return int((filled > 0).sum(1).max())
