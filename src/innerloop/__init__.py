"""innerloop: models that adapt to a new task from a handful of examples.

``innerloop.load(path).adapt(examples)`` adapts a meta-trained language model from Python; everything else
stands in the sub-packages and on the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop.llm.adapt import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports ``load`` when it is first used, so that importing the package stays light."""
    if name == "load":
        return import_module("innerloop.llm.adapt").load
    raise AttributeError(f"module 'innerloop' has no attribute '{name}'")
