"""Which tokens of a batch see which: by a mask, or by attending to packed rows one by one.

Packed rows usually keep apart by a mask over all pairs of their tokens, which costs the square of the whole
batch. Here every row attends within itself only, by the back end ``sdpa`` that a model would use anyway, so
that packing wastes neither padding nor attention. Calls without row lengths (generation) go to ``sdpa`` as
they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from innerloop.core.errors import InputError
from innerloop.llm.data.tokens import TokenBatch

ROWS_APART = "innerloop_rows_apart"
FLASH = ("flash_attention_2", "flash_attention_3")


# It loops over rows, each of its own length; compiled, it would be compiled anew for every batch.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_rows_apart(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: Sequence[int] | None = None,
    shared: int = 0,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """An attention function as transformers calls it.

    Args:
        module: the attention layer.
        query: (1, heads, L, width), as are ``key`` and ``value`` with their own number of heads.
        key: see ``query``.
        value: see ``query``.
        attention_mask: not looked at where ``row_lengths`` are given: each row is causal by itself.
        row_lengths: tokens of each of the rows laid end to end; they add up to L.
        shared: so many tokens of the first row are the beginning of every other row too.
        sliding_window: the most tokens a layer looks back on, itself included.
        dropout: for ``sdpa``, as are the arguments after it.
        scaling: see ``dropout``.
        is_causal: see ``dropout``.
        softcap: see ``dropout``.
        position_bias: see ``dropout``; refused with ``row_lengths``.

    Returns:
        (1, L, heads, width), and no attention weights.

    Raises:
        InputError: if the model adds a bias by position, which is not cut row by row.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        output, _ = sdpa_attention_forward(
            module,
            q,
            k,
            v,
            mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
            softcap=softcap,
        )
        return output

    if row_lengths is None:
        return attend(query, key, value, attention_mask), None
    if position_bias is not None:
        raise InputError(
            "packed rows cannot attend to themselves alone in a model with position biases; "
            "set model.attn_implementation=sdpa"
        )
    # Splitting makes one gradient of all rows; slicing would make one of the whole length for each.
    lengths = [shared, row_lengths[0] - shared, *row_lengths[1:]]
    parts = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
    (q0, k0, v0), *rows = zip(*parts, strict=True)
    outputs = [attend(q0, k0, v0, _visible(q0, 0, sliding_window))] if shared else []
    for q, k, v in rows:
        if shared:
            k, v = torch.cat([k0, k], dim=2), torch.cat([v0, v], dim=2)
        outputs.append(attend(q, k, v, _visible(q, shared, sliding_window)))
    return torch.cat(outputs, dim=1), None


def keep_rows_apart(model: PreTrainedModel) -> bool:
    """Has a model attend to packed rows one by one, if it would use ``sdpa`` and hands arguments on to it."""
    able = bool(model._supports_attention_backend) and model.config._attn_implementation == "sdpa"
    if able:
        model.set_attn_implementation(ROWS_APART)
    return able


def keeps_rows_apart(model: PreTrainedModel | PeftModel) -> bool:
    """Whether packed rows cost a model no attention to each other."""
    return model.config._attn_implementation in (ROWS_APART, *FLASH)


def shares_beginnings(model: PreTrainedModel | PeftModel) -> bool:
    """Whether packed rows may hold what all of them begin with once."""
    return bool(model.config._attn_implementation == ROWS_APART)


def model_inputs(model: Any, batch: TokenBatch) -> dict[str, Any]:
    """A batch as the arguments of a Hugging Face model."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    kind = model.config._attn_implementation
    if kind in FLASH:
        # These kernels find the borders of packed rows in the position ids, and right padding never
        # reaches a target under causal attention.
        return inputs
    if kind == ROWS_APART and len(batch.input_ids) == 1:
        lengths = torch.unique_consecutive(batch.segment_ids[0], return_counts=True)[1].tolist()
        # Transformers would make a mask over all pairs of tokens; one of four dimensions it leaves as it is.
        no_mask = batch.target_weights.new_empty(1, 1, 0, 0)
        return {**inputs, "attention_mask": no_mask, "row_lengths": lengths, "shared": int(batch.shared)}
    return {**inputs, "attention_mask": _attention_mask(batch, model.dtype)}


def _attention_mask(batch: TokenBatch, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores, (B, 1, L, L): each token sees the earlier ones of its own row, also
    those that only the first row holds."""
    segments = batch.segment_ids
    of_all = (segments == 1) & (batch.position_ids < batch.shared)
    same_row = segments.unsqueeze(-1) == segments.unsqueeze(-2)
    visible = (same_row | of_all.unsqueeze(-2)) & torch.ones_like(same_row).tril()
    hidden = torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    return hidden.unsqueeze(-3)


def _visible(query: Tensor, before: int, window: int | None) -> Tensor | None:
    """What a row's tokens see of the ``before`` shared ones and of their own; none is plain causal."""
    length = query.shape[2]
    if not before and (window is None or length <= window):
        return None
    seen = torch.ones(length, before + length, dtype=torch.bool, device=query.device).tril(before)
    return (seen if window is None else seen.triu(before + 1 - window))[None, None]


AttentionInterface.register(ROWS_APART, attend_rows_apart)
AttentionMaskInterface.register(ROWS_APART, sdpa_mask)
