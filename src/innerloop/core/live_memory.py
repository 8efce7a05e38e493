"""How many bytes of tensors a piece of work holds at its height, counted instead of measured.

Every tensor that the work makes is counted from its making to its end, gradients and what autograd saves
included; those it finds there are not. What a kernel takes for itself while it runs does not show. On fake
tensors, which have shapes and no memory, nothing is computed and the count is the same.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    Args:
        small: tensors below this size, in bytes, are also counted apart.

    Attributes:
        now: bytes alive.
        small_now: those of them in small tensors.
        peak: the most there were.
    """

    def __init__(self, small: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.small_now = 0
        self._small = small
        self._sizes: dict[int, int] = {}
        # What was there before. The storages are held, so that no new one is given the place of an old one.
        self._found: dict[int, UntypedStorage] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs an operation and counts what it made."""
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor) and (place := _place(tensor)) not in self._sizes:
                self._found[place] = tensor.untyped_storage()
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        place = _place(tensor)
        if place in self._found or place in self._sizes:
            return
        storage = tensor.untyped_storage()
        self._sizes[place] = storage.nbytes()
        self._add(storage.nbytes())
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self._add(-self._sizes.pop(place))

    def _add(self, size: int) -> None:
        self.now += size
        self.small_now += size if abs(size) < self._small else 0


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
