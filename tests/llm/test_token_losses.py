"""The loss of single tokens against PyTorch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from innerloop.llm.token_losses import ROWS, token_losses


def by_pytorch(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="none")


def made(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, some of them large, labels, and a weight for each row."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(rows, 11, generator=generator, dtype=dtype)
    logits[0, 3] = 200.0
    labels = torch.randint(0, 11, (rows,), generator=generator)
    return logits.requires_grad_(), labels, torch.randn(rows, generator=generator, dtype=dtype)


@pytest.mark.parametrize("rows", [1, 7, ROWS, 2 * ROWS + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_those_of_pytorch(rows: int, dtype: torch.dtype) -> None:
    logits, labels, weights = made(rows, dtype)
    found, wanted = token_losses(logits, labels), by_pytorch(logits, labels)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(losses @ weights, logits)[0] for losses in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_it_can_be_differentiated_twice() -> None:
    logits, labels, _ = made(5)
    assert torch.autograd.gradcheck(lambda values: token_losses(values, labels), logits)
    assert torch.autograd.gradgradcheck(lambda values: token_losses(values, labels), logits)


def test_it_can_be_mapped() -> None:
    logits, labels, _ = made(6)
    two = torch.stack([logits.detach(), 2 * logits.detach()])
    mapped = torch.func.vmap(token_losses, in_dims=(0, None))(two, labels)
    torch.testing.assert_close(mapped, torch.stack([by_pytorch(one, labels) for one in two]))
