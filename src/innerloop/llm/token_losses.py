"""The cross-entropy of single tokens, holding two tensors of the size of the logits where PyTorch holds four.

The logits of a vocabulary are the largest tensor of a step. PyTorch keeps their log-softmax beside them,
fills a third with the gradient of the chosen entries and makes a fourth of it. Here the logits and a number a
token are kept, and the gradient is made of them in one go, a few rows at a time, which stay in the
processor's cache.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

ROWS = 32


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits)[label] of every row; it can be differentiated any number of times.

    Args:
        logits: (n, vocabulary).
        labels: (n,) int64.

    Returns:
        (n,).
    """
    if torch._C._are_functorch_transforms_active() or logits.device.type != "cpu":
        return cross_entropy(logits, labels, reduction="none")
    losses: Tensor = _TokenLosses.apply(logits, labels)  # type: ignore[no-untyped-call]
    return losses


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        sizes = torch.cat([torch.logsumexp(rows, 1) for rows in torch.split(logits, ROWS)])
        ctx.save_for_backward(logits, labels, sizes)
        return sizes - logits.gather(1, labels[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (logits, labels, sizes) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            chosen = torch.zeros_like(logits).scatter(1, labels[:, None], 1.0)
            return (logits.softmax(1) - chosen) * gradient[:, None], None
        result = torch.empty_like(logits)
        for into, rows, size, factor in zip(
            *(torch.split(t, ROWS) for t in (result, logits, sizes[:, None], gradient[:, None])), strict=True
        ):
            # Divided by their sum, so that the rounding of the size does not lengthen the whole row.
            shares = torch.sub(rows, size, out=into).exp_()
            shares.mul_(factor / shares.sum(1, keepdim=True))
        return result.scatter_add_(1, labels[:, None], -gradient[:, None]), None
