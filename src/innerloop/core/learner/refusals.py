"""What PyTorch refuses to differentiate or to map over tasks, said in one line with the way out."""

from collections.abc import Iterator
from contextlib import contextmanager

from innerloop.core.errors import InputError

_NOT_TWICE = (
    "a kernel of this model has no second derivative; "
    "use attn_implementation=eager, or meta.hvp=central, which needs first derivatives only"
)
_NOT_TRANSFORMED = (
    "cannot run where PyTorch transforms the model (several tasks at once, meta.hvp=forward); "
    "turn it off, or run one task at a time with meta.hvp=reverse or central"
)
_REFUSALS = {
    "saved tensor hooks": f"gradient checkpointing {_NOT_TRANSFORMED}",
    "attempting to call Tensor.requires_grad_()": f"gradient checkpointing {_NOT_TRANSFORMED}",
    "When use_reentrant=True": "reentrant gradient checkpointing hides parameters; set use_reentrant=False",
    "in randomness error mode": f"dropout (or another random operation) {_NOT_TRANSFORMED}",
    "would mutate a captured Tensor": f"a buffer that changes in the forward pass {_NOT_TRANSFORMED}",
    "which will be updated in place, were not batched": f"a norm's running statistics {_NOT_TRANSFORMED}",
    "_backward is not implemented": _NOT_TWICE,
    "Trying to use forward AD with": _NOT_TWICE,
}


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Turns the errors PyTorch raises for what it cannot do into :class:`InputError`; others pass through."""
    try:
        yield
    except RuntimeError as error:
        for sign, explanation in _REFUSALS.items():
            if sign in str(error):
                raise InputError(explanation) from error
        raise
