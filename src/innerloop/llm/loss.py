"""The loss of a causal language model on response tokens, and the one shift between tokens and predictions.

Batches name the tokens to be predicted; here alone does "predict token t" become "read the logits at t - 1".
Logits are computed at those positions only: the output layer is a large share of a small model's work, and
most of a row is prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn.functional import cross_entropy, pad

from innerloop.core.errors import InputError
from innerloop.core.task import Batch, MicroBatches, pieces
from innerloop.llm.data.tokens import TokenBatch

# Lets vmap look into a batch: its fields get the task dimension.
register_dataclass(TokenBatch)

FLASH = ("flash_attention_2", "flash_attention_3")


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
    """

    loss: Tensor
    correct: Tensor
    targets: Tensor


@torch.no_grad()
def score_responses(model: nn.Module, batch: TokenBatch) -> ResponseScores:
    """Scores the rows of a padded (not packed) batch one by one."""
    logits, labels = _logits_and_labels(model, batch)
    weights = batch.target_weights
    return ResponseScores(
        loss=(_token_losses(logits, labels) * weights).sum(1),
        correct=((logits.argmax(-1) == labels) * weights).sum(1),
        targets=weights.sum(1),
    )


def batch_tokens(batch: TokenBatch) -> int:
    """The real tokens of a piece, padding left out: the ledger's unit."""
    return int((batch.segment_ids > 0).sum())


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
    columns: dict[str, Tensor] = {}
    for field in fields(TokenBatch):
        tensors = [getattr(batch, field.name) for batch in whole]
        if tensors[0].ndim == 0:
            columns[field.name] = torch.stack(tensors)
            continue
        rows, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
        columns[field.name] = torch.stack(
            [pad(t, (0, width - t.shape[1], 0, rows - t.shape[0])) for t in tensors]
        )
    return TokenBatch(**columns)


def as_batch(parts: Sequence[TokenBatch], device: torch.device) -> Batch:
    """The pieces of a collated batch, on a device, as the core knows batches."""
    return MicroBatches(part.to(device) for part in parts)


def _logits_and_labels(model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    with _logits_before(model, batch.targets):
        logits = model(**_model_inputs(model, batch)).logits
    return logits, batch.input_ids.gather(1, batch.targets)


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    # Half-precision logits are too coarse for a log-sum-exp over a whole vocabulary.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


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


def _model_inputs(model: Any, batch: TokenBatch) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    if model.config._attn_implementation in FLASH:
        # These kernels find the borders of packed rows in the position ids, and right padding never
        # reaches a target under causal attention.
        return inputs
    return {**inputs, "attention_mask": _attention_mask(batch.segment_ids, model.dtype)}


def _attention_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores, (B, 1, L, L): each token sees the earlier ones of its own row."""
    same_row = segments.unsqueeze(-1) == segments.unsqueeze(-2)
    visible = same_row & torch.ones_like(same_row).tril()
    hidden = torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    return hidden.unsqueeze(-3)
