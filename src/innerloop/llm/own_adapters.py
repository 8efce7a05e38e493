"""Several sets of LoRA weights in one batch: each row runs through its own.

The frozen weights are read once for all the rows, which is what decoding spends its time on; the adapters are
small batched products beside them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from innerloop.core.params import Params


class OwnAdapters:
    """Rows of a batch with adapter weights of their own. For models that ``has_plain_adapters``.

    Args:
        model: a PEFT model with one adapter.
        points: sets of its adapted parameters.
        which: for every row of the full batch, the index of its set.
    """

    def __init__(self, model: nn.Module, points: Sequence[Params], which: Sequence[int]) -> None:
        self._model, self._which = model, which
        self._sets = {name: torch.stack([point[name] for point in points]) for name in points[0]}
        self._rows: Params = {}

    def now_live(self, rows: Sequence[int]) -> None:
        """Sets which rows of the full batch the next calls hold, in order."""
        which = [self._which[row] for row in rows]
        self._rows = {name: tensor[which] for name, tensor in self._sets.items()}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, each row of the model's batch goes through its own adapter."""
        replaced: list[nn.Module] = []
        try:
            for name, layer in _plain_layers(self._model):
                module: nn.Module = layer
                module.forward = self._forward(name, layer)
                replaced.append(module)
            yield
        finally:
            for module in replaced:
                del module.forward

    def _forward(self, name: str, layer: Linear) -> Callable[[Tensor], Tensor]:
        down, up = _names(name, layer)
        scale: float = layer.scaling[layer.active_adapters[0]]

        def forward(values: Tensor) -> Tensor:
            output: Tensor = layer.base_layer(values)
            inner = torch.bmm(values.to(self._rows[down].dtype), self._rows[down].transpose(1, 2))
            beside = torch.bmm(inner, self._rows[up].transpose(1, 2))
            return output + (scale * beside).to(output.dtype)

        return forward


def has_plain_adapters(model: nn.Module, theta: Params) -> bool:
    """Whether all that is adapted are the two matrices of LoRA on linear layers."""
    plain = {name for place, layer in _plain_layers(model) for name in _names(place, layer)}
    return bool(theta) and plain == set(theta)


def _plain_layers(model: nn.Module) -> Iterator[tuple[str, Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, Linear) and not module.lora_variant and len(module.active_adapters) == 1:
            yield name, module


def _names(place: str, layer: Linear) -> tuple[str, str]:
    adapter = layer.active_adapters[0]
    return f"{place}.lora_A.{adapter}.weight", f"{place}.lora_B.{adapter}.weight"
