"""Settings of which one section's keys depend on its name: a method, a task family."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from innerloop.core.errors import InputError
from innerloop.settings.layers import Layer, Stack
from innerloop.settings.reader import Reader

Common = TypeVar("Common")
Chosen = TypeVar("Chosen")


def read_chosen(
    layers: Sequence[Layer], common: type[Common], key: str, kinds: Mapping[str, type[Chosen]]
) -> tuple[Common, Chosen]:
    """Merges layers and reads them.

    Args:
        layers: the lowest first.
        common: all sections but the one that is chosen.
        key: of that one.
        kinds: what it may be, by the name that stands in it.

    Raises:
        InputError: a name that is missing or unknown; an unknown key, a wrong type, a value out of range.
    """
    base, *others = layers
    stack = Stack(base)
    for layer in others:
        stack.push(layer)
    values = stack.resolved()
    chosen = values.pop(key, None)
    read = Reader(stack.place, common).section(common, values)
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    if name is None:
        raise InputError(
            f"{key}.name is missing; name a packaged configuration or set it to one of {', '.join(kinds)}"
        )
    if name not in kinds:
        nearest = difflib.get_close_matches(str(name), kinds, n=1, cutoff=0.5)
        meant = f"did you mean '{nearest[0]}'? " if nearest else ""
        place = stack.place(f"{key}.name")
        raise InputError(f"no {key} '{name}' ({place}); {meant}there are: {', '.join(kinds)}")
    kind = kinds[name]
    return read, Reader(stack.place, kind).section(kind, chosen, key)
