"""The loss of a causal language model on response tokens, and the one shift between tokens and predictions.

Batches name the tokens to be predicted; here alone does "predict token t" become "read the logits at t - 1".
Logits are computed at those positions only: the output layer is a large share of a small model's work, and
most of a row is prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn.functional import pad
from transformers import Cache

from innerloop.core.errors import InputError
from innerloop.core.task import Batch, MicroBatches, pieces
from innerloop.llm.attention import model_inputs
from innerloop.llm.data.tokens import TokenBatch
from innerloop.llm.prefix import upper_layers_only
from innerloop.llm.token_losses import token_losses

# Lets vmap look into a batch: its fields get the task dimension.
register_dataclass(TokenBatch)


def response_loss(model: nn.Module, batch: TokenBatch) -> Tensor:
    """A batch's (or its piece's) share of the mean cross-entropy over response tokens.

    Args:
        model: a Hugging Face causal language model, wrapped by PEFT or not.
        batch: B rows; the sum over its targets is divided by ``batch.normalizer``, the number of targets of
            the whole batch, so the shares of pieces and ranks add up to the mean over all tokens.

    Returns:
        shape ``()``, in nats.
    """
    logits, labels = _logits_and_labels(model, batch)
    return (_token_losses(logits, labels) * batch.target_weights).sum() / batch.normalizer


@dataclass(frozen=True)
class ResponseScores:
    """What a model makes of each row's response under teacher forcing.

    Args:
        loss: shape ``(B,)``, the summed cross-entropy of the row's targets.
        correct: shape ``(B,)``, how many targets were the most likely token.
        targets: shape ``(B,)``, how many there were.
        likeliest: for each row the most likely token in the place of each of its targets.
    """

    loss: Tensor
    correct: Tensor
    targets: Tensor
    likeliest: tuple[tuple[int, ...], ...]


@torch.no_grad()
def score_responses(model: nn.Module, batch: TokenBatch, cache: Cache | None = None) -> ResponseScores:
    """Scores the rows of a batch, padded or packed, one by one and in order.

    Args:
        model: as for ``response_loss``.
        batch: one piece.
        cache: takes up what the layers that run make of the rows.
    """
    logits, labels = _logits_and_labels(model, batch, cache)
    likeliest = logits.argmax(-1)
    weights = batch.target_weights
    row = batch.segment_ids.gather(1, batch.targets) - 1
    if len(row) > 1:
        row = torch.arange(len(row), device=row.device).unsqueeze(1).expand_as(row)
    count = int(row.max()) + 1

    def by_row(values: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, row.flatten(), (values * weights).flatten())

    targets = by_row(torch.ones_like(weights))
    tokens = torch.split(likeliest[weights > 0], targets.int().tolist())
    return ResponseScores(
        loss=by_row(_token_losses(logits, labels)),
        correct=by_row((likeliest == labels).to(weights)),
        targets=targets,
        likeliest=tuple(tuple(row.tolist()) for row in tokens),
    )


def batch_tokens(batch: TokenBatch) -> int:
    """The real tokens of a piece, padding left out: the ledger's unit."""
    return batch.token_count


def stack_token_batches(batches: Sequence[Batch]) -> TokenBatch:
    """The batches of several tasks, padded to common lengths, with a leading task dimension.

    Raises:
        InputError: if a batch is cut into micro-batches, whose number would differ from task to task.
    """
    whole: list[TokenBatch] = []
    for batch in batches:
        parts = list(pieces(batch))
        if len(parts) != 1:
            raise InputError(
                "several tasks at once need whole batches; unset data.micro_batch_tokens, or set "
                "meta.learner=functional"
            )
        whole += parts
    columns: dict[str, Tensor | None] = {}
    for field in fields(TokenBatch):
        tensors = [getattr(batch, field.name) for batch in whole]
        if any(tensor is None for tensor in tensors):
            columns[field.name] = None
            continue
        if tensors[0].ndim == 0:
            columns[field.name] = torch.stack(tensors)
            continue
        rows, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
        columns[field.name] = torch.stack(
            [pad(t, (0, 0) * (t.ndim - 2) + (0, width - t.shape[1], 0, rows - t.shape[0])) for t in tensors]
        )
    return TokenBatch(**columns)  # type: ignore[arg-type]


def as_batch(parts: Sequence[TokenBatch], device: torch.device) -> Batch:
    """The pieces of a collated batch, on a device, as the core knows batches."""
    return MicroBatches(part.to(device) for part in parts)


def _logits_and_labels(
    model: nn.Module, batch: TokenBatch, cache: Cache | None = None
) -> tuple[Tensor, Tensor]:
    with ExitStack() as how:
        how.enter_context(_logits_before(model, batch.targets))
        if batch.hidden is not None:
            how.enter_context(upper_layers_only(model, batch.hidden))
        inputs = model_inputs(model, batch)
        if cache is not None:
            inputs |= {"past_key_values": cache, "use_cache": True}
        logits = model(**inputs).logits
    return logits, batch.input_ids.gather(1, batch.targets)


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    # Half-precision logits are too coarse for a log-sum-exp over a whole vocabulary.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return token_losses(logits.flatten(0, 1), labels.flatten()).view(labels.shape)


@contextmanager
def _logits_before(model: Any, targets: Tensor) -> Iterator[None]:
    """Has the output layer see only the hidden states from which the targets are predicted.

    A hook on the layer, rather than calling it by hand, keeps what models do to their logits afterwards
    (scaling, soft caps).
    """

    def select(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = arguments
        before = (targets - 1).clamp(min=0)
        index = before.unsqueeze(-1).expand(*before.shape, hidden.shape[-1])
        return (hidden.gather(1, index), *rest)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
