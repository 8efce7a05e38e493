"""Activations of the frozen layers below the lowest adapter, computed once for each row.

With adapters in the upper layers only (``model.lora_layers``), what enters the lowest adapted layer never
changes while a model adapts or meta-trains: it is the same before and after adaptation, in every inner step,
on both sides of a difference quotient, and whenever a row is drawn again. So it is kept by row, within a
budget of memory, and travels in the batch (``TokenBatch.hidden``); the loss then runs the upper layers only.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from innerloop.llm.attention import keeps_rows_apart, model_inputs
from innerloop.llm.data.tokens import TokenizedRow, collate
from innerloop.llm.decoding import KeysAndValues, keys_and_values


class FrozenPrefix:
    """The states that enter the lowest adapted layer, for each row that is asked for.

    Make one by :meth:`of`, which says where it cannot hold.

    Args:
        model: with adapters in its upper layers only.
        budget: bytes that may be kept; the rows least recently asked for go first.
    """

    def __init__(self, model: PeftModel, budget: int) -> None:
        self._model, self._budget, self._held = model, budget, 0
        self._kept: OrderedDict[tuple[str, TokenizedRow], tuple[Tensor, ...]] = OrderedDict()

    @classmethod
    def of(cls, model: PreTrainedModel | PeftModel, budget: int) -> "FrozenPrefix | None":
        """A cache for the model; none if it has no frozen layers below its adapters, if they do more than
        hand on one tensor that is always the same, or off the CPU, where no measurement speaks for it.

        Args:
            model: as it will be trained or adapted.
            budget: bytes that may be kept.
        """
        if budget <= 0 or model.device.type != "cpu" or not isinstance(model, PeftModel):
            return None
        if not frozen_layers(model) or _drops_out(model):
            return None
        kept = {id(p) for layer in frozen_layers(model) for p in layer.parameters()}
        embeddings: Any = model.get_input_embeddings()
        kept |= {id(p) for p in embeddings.parameters()}
        if any(id(p) in kept for p in model.parameters() if p.requires_grad):
            return None
        prefix = cls(model, budget)
        return prefix if prefix._holds() else None

    def states(self, rows: Sequence[TokenizedRow]) -> dict[TokenizedRow, Tensor]:
        """The states of each row's tokens, ``(n, width)`` each, on the model's device."""
        return {row: states for row, (states,) in self._look_up(rows, "states", self._states).items()}

    def keys_values(self, rows: Sequence[TokenizedRow]) -> dict[TokenizedRow, KeysAndValues]:
        """What the frozen layers put into a key-value cache for each row, for decoding to go on from."""
        found = self._look_up(rows, "cache", self._keys_values)
        return {row: tuple(zip(flat[::2], flat[1::2], strict=True)) for row, flat in found.items()}

    def _look_up(
        self, rows: Sequence[TokenizedRow], kind: str, compute: Callable[[TokenizedRow], tuple[Tensor, ...]]
    ) -> dict[TokenizedRow, tuple[Tensor, ...]]:
        found: dict[TokenizedRow, tuple[Tensor, ...]] = {}
        for row in dict.fromkeys(rows):
            if (kind, row) in self._kept:
                self._kept.move_to_end((kind, row))
                found[row] = self._kept[kind, row]
            else:
                # Each alone: what shares a batch changes the last bits, and a run that is resumed, whose rows
                # come in other company, must equal one that was not.
                found[row] = compute(row)
                self._keep((kind, row), found[row])
        return found

    def _states(self, row: TokenizedRow) -> tuple[Tensor, ...]:
        return (self._run(row, None)[0],)

    def _keys_values(self, row: TokenizedRow) -> tuple[Tensor, ...]:
        cache = DynamicCache(config=self._model.config.get_text_config())
        self._run(row, cache)
        layers = cache.layers[: len(frozen_layers(self._model))]
        return tuple(tensor[0] for tensor in keys_and_values(layers))

    def _run(self, row: TokenizedRow, cache: DynamicCache | None) -> Tensor:
        (batch,) = collate([row], pad_id=0, packed=keeps_rows_apart(self._model))
        inputs = model_inputs(self._model, batch.to(self._model.device))
        with torch.no_grad(), _frozen_layers_only(self._model) as reached:
            self._model(
                **inputs | {"past_key_values": cache, "use_cache": cache is not None}, logits_to_keep=1
            )
        (states,) = reached
        return states

    def _keep(self, key: tuple[str, TokenizedRow], tensors: tuple[Tensor, ...]) -> None:
        self._kept[key] = tensors
        self._held += sum(tensor.nbytes for tensor in tensors)
        while self._held > self._budget:
            _, dropped = self._kept.popitem(last=False)
            self._held -= sum(tensor.nbytes for tensor in dropped)

    def _holds(self) -> bool:
        """Whether the model gives the same logits from the states as from the tokens: some architectures
        hand more from layer to layer than one tensor."""
        row = TokenizedRow((1, 2, 0), (False, True, True))
        ids = torch.tensor([row.input_ids], device=self._model.device)

        def logits() -> Tensor:
            with torch.random.fork_rng():
                torch.manual_seed(0)  # an adapter's dropout must fall alike on both
                output: Tensor = self._model(input_ids=ids, use_cache=False).logits
            return output

        try:
            with torch.no_grad(), upper_layers_only(self._model, self.states([row])[row][None]):
                upper = logits()
        except _NotOneTensorError:
            return False
        with torch.no_grad():
            whole = logits()
        return bool((upper - whole).abs().max() <= torch.finfo(whole.dtype).eps ** 0.5 * whole.abs().max())


@contextmanager
def upper_layers_only(model: nn.Module, states: Tensor) -> Iterator[None]:
    """Inside, the model takes up at its lowest adapted layer with the given states.

    Args:
        model: as for ``FrozenPrefix``.
        states: (B, L, width); what the embeddings make of the token ids is passed over.
    """
    *below, last = frozen_layers(model)
    with _replaced(below, _pass_on), _replaced([last], lambda *_given, **_options: states):
        yield


def frozen_layers(model: nn.Module) -> Sequence[nn.Module]:
    """The decoder layers below the lowest one with an adapter; none if no layer has one."""
    layers = decoder_layers(model)
    for index, layer in enumerate(layers):
        if any(isinstance(module, LoraLayer) for module in layer.modules()):
            return layers[:index]
    return []


def decoder_layers(model: nn.Module) -> Sequence[nn.Module]:
    """The model's decoder layers, lowest first; none where they cannot be told."""
    count = getattr(model, "config").get_text_config().num_hidden_layers  # noqa: B009 (nn.Module's is untyped)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    return []


@contextmanager
def _frozen_layers_only(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the model stops after its frozen layers and leaves in the list what comes out of them."""
    below = frozen_layers(model)
    reached: list[Tensor] = []
    taken = below[-1].register_forward_hook(lambda _layer, _given, output: reached.append(_tensor(output)))
    try:
        with _replaced(decoder_layers(model)[len(below) :], _pass_on):
            yield reached
    finally:
        taken.remove()


class _NotOneTensorError(Exception):
    """A layer gives something other than one tensor of hidden states."""


def _tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise _NotOneTensorError
    return output


def _pass_on(hidden_states: Tensor, *_given: object, **_options: object) -> Tensor:
    return hidden_states


@contextmanager
def _replaced(layers: Sequence[nn.Module], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Inside, the layers run this function in place of their own."""
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _drops_out(model: PeftModel) -> bool:
    """Whether the base drops activations out as it is set now; the adapter's own dropout is above."""
    base: nn.Module = model.get_base_model()
    settings = model.config.get_text_config().to_dict()
    rates = [value for name, value in settings.items() if "drop" in name and isinstance(value, float)]
    return base.training and any(rates)
