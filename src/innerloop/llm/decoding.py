"""Token after token: the loop that continues a batch of rows from what a key-value cache holds of them.

Rows that were read already, while their references were scored say, go on from where they are with
``continue_begun``; whole prompts are ``generate``'s business.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

Choose = Callable[[Tensor, Sequence[int]], list[int]]
"""One token a row of logits (B, V); told which rows they are."""

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]
"""What a cache holds of one row, layer by layer: keys and values, (heads, n, width) each."""


@dataclass(frozen=True)
class Begun:
    """A row in the middle of its answer.

    Args:
        read: what the cache holds of the n tokens before ``token``.
        token: the newest token, not read yet.
        room: how many tokens may follow it.
    """

    read: KeysAndValues
    token: int
    room: int

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return self.read[0][0].shape[1]


def keeps_whole_rows(model: PreTrainedModel | PeftModel) -> bool:
    """Whether the model's cache holds all tokens' keys and values in all layers: no window, no recurrence."""
    layers = DynamicCache(config=model.config.get_text_config()).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def keys_and_values(layers: Iterable[object]) -> list[Tensor]:
    """Keys and values of each layer of a cache in turn, (B, heads, L, width) each."""
    found: list[Tensor] = []
    for layer in layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        found += [layer.keys, layer.values]
    return found


def continue_begun(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Begun],
    stops: frozenset[int],
    now_live: Callable[[Sequence[int]], None] = lambda _rows: None,
) -> list[list[int]]:
    """Continues rows greedily, all in one batch.

    Args:
        model: in evaluation mode; one that ``keeps_whole_rows``.
        rows: at least one.
        stops: tokens that end an answer.
        now_live: told, at first and whenever rows end, which ones are left, in the batch's order.

    Returns:
        The tokens that follow each row's ``token``, without the stop token.
    """
    device = model.device
    lengths = torch.tensor([row.length for row in rows], device=device)
    cache = DynamicCache(config=model.config.get_text_config())
    for layer in range(len(rows[0].read)):
        keys, values = (
            pad_sequence([row.read[layer][part].transpose(0, 1) for row in rows], batch_first=True)
            for part in (0, 1)
        )
        cache.update(keys.transpose(1, 2), values.transpose(1, 2), layer)
    seen = (torch.arange(int(lengths.max()), device=device) < lengths[:, None]).long()
    return continue_rows(
        model,
        cache,
        ids=torch.tensor([[row.token] for row in rows], device=device),
        mask=torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1),
        positions=lengths[:, None],
        stops=stops,
        rooms=[row.room for row in rows],
        choose=lambda logits, _rows: logits.argmax(dim=1).tolist(),
        now_live=now_live,
    )


@torch.no_grad()
def continue_rows(
    model: PreTrainedModel | PeftModel,
    cache: Cache,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    stops: frozenset[int],
    rooms: Sequence[int],
    choose: Choose,
    now_live: Callable[[Sequence[int]], None] = lambda _rows: None,
) -> list[list[int]]:
    """Reads ids and continues each row until a stop token or its room is used up.

    Args:
        model: in evaluation mode.
        cache: what was read of the rows before; changed.
        ids: (B, L) the tokens to read first; their last one is every row's newest.
        mask: (B, cached + L) 1 where a token counts, 0 in padding.
        positions: (B, L) of ``ids``.
        stops: tokens that end an answer.
        rooms: the most tokens each answer may have.
        choose: the next token of each row.
        now_live: as for ``continue_begun``.

    Returns:
        The new ids of each row, without the stop token.
    """
    answers: list[list[int]] = [[] for _ in rooms]
    live = [row for row, room in enumerate(rooms) if room > 0]
    if len(live) < len(rooms):
        ids, mask, positions = _select(cache, live, ids, mask, positions)
    now_live(live)
    while live:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = choose(output.logits[:, -1], live)
        for row, token in zip(live, tokens, strict=True):
            if token not in stops:
                answers[row].append(token)
        going = [
            place
            for place, (row, token) in enumerate(zip(live, tokens, strict=True))
            if token not in stops and len(answers[row]) < rooms[row]
        ]
        ids = torch.tensor(tokens, device=ids.device)[:, None]
        if len(going) < len(live):  # a finished row leaves the batch, its cache with it
            ids, mask, positions = _select(cache, going, ids, mask, positions)
            live = [live[place] for place in going]
            now_live(live)
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return answers


def _select(cache: Cache, places: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
    kept = torch.tensor(places, dtype=torch.long, device=tensors[0].device)
    if places:
        cache.batch_select_indices(kept)
    return tuple(tensor[kept] for tensor in tensors)
