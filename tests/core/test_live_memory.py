"""The count of live tensors, on sums that can be done by hand."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from innerloop.core.live_memory import LiveMemory

KB = 4 * 256  # 256 float32


def test_it_counts_what_is_made_and_forgets_what_is_gone() -> None:
    found = torch.ones(256)
    with LiveMemory() as live:
        first = found + 1
        assert live.now == KB
        view = first.view(16, 16).t()
        assert live.now == KB, "a view is no memory"
        second = view * 2
        assert live.now == 2 * KB
        del first, view
        assert live.now == KB
        found.mul_(2)
        assert live.now == KB, "what was there before is not counted"
        del second
    assert (live.now, live.peak) == (0, 2 * KB)


def test_small_tensors_are_counted_apart() -> None:
    with LiveMemory(small=2 * KB) as live:
        small, large = torch.ones(256), torch.ones(512)
        assert (live.now, live.small_now) == (3 * KB, KB)
        del small, large
    assert (live.now, live.small_now) == (0, 0)


def test_it_counts_what_autograd_keeps() -> None:
    """Three layers of tanh keep their outputs, and the backward pass frees them."""
    inputs = torch.ones(256, requires_grad=True)
    with LiveMemory() as live:
        outputs = inputs
        for _ in range(3):
            outputs = outputs.tanh()
        assert live.now == 3 * KB
        outputs.sum().backward()
        del outputs
        assert live.now <= KB + 8  # the gradient
    assert inputs.grad is not None


def test_fake_tensors_give_the_same_count() -> None:
    def peak() -> int:
        module = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8))
        batch = torch.ones(16, 32)
        with LiveMemory() as live:
            module(batch).square().mean().backward()
        return live.peak

    with FakeTensorMode():
        abstract = peak()
    assert abstract == peak()
