"""innerloop: models that adapt to a new task from a handful of examples.

``innerloop.load(path).adapt(examples)`` adapts a meta-trained language model from Python,
``innerloop.Client(url)`` submits jobs to a service; everything else stands in the sub-packages and on the
command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop.llm.adapt import load
    from innerloop.service.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "load"]

_PLACES = {"load": "innerloop.llm.adapt", "Client": "innerloop.service.client"}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used, so that importing the package stays light."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'innerloop' has no attribute '{name}'")
