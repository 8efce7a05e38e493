"""A training step of Prototypical Networks on the CPU against the same step in plain PyTorch.

The peer is the method as it is usually written, in PyTorch's own layout and with the C library's own
allocator; ours lays channels side by side and keeps freed memory. Since the allocator belongs to a process,
every round runs each side in a fresh one. That both have the same loss is checked. Run:
``python benchmarks/bench_few_shot_step.py``.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.allocator import keep_freed_memory
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.prototypical import PrototypicalNet
from measure import Ratio

ROUNDS, STEPS = 5, 6


@dataclass(frozen=True)
class Work:
    """One size of step: ``ways`` classes of one support and five query images each."""

    name: str
    ways: int
    size: int
    channels: int

    def episodes(self) -> Episodes:
        """Random images, always the same."""
        torch.manual_seed(0)
        images = torch.randn(1, 6 * self.ways, self.channels, self.size, self.size)
        labels = torch.arange(6 * self.ways)[None] % self.ways
        ways = self.ways
        return Episodes(images[:, :ways], labels[:, :ways], images[:, ways:], labels[:, ways:], ways)


WORKS = (Work("Omniglot, 60-way", 60, 28, 1), Work("mini-ImageNet, 20-way", 20, 84, 3))


@dataclass(frozen=True)
class Cost:
    """What a process found: seconds a step, the median, and the loss."""

    seconds: float
    loss: float


def ours(work: Work) -> Cost:
    """The package's learner in a process that keeps freed memory."""
    keep_freed_memory()
    net = PrototypicalNet(_backbone(work))
    episodes = work.episodes()
    return _timed(net, lambda: net.loss(episodes))


def plain(work: Work) -> Cost:
    """The peer: the layers in PyTorch's layout, distances by ``cdist``."""
    backbone = _backbone(work)
    episodes = work.episodes()

    def loss() -> Tensor:
        features = backbone(torch.cat([episodes.support, episodes.query], 1)[0])
        support, query = features[: work.ways], features[work.ways :]
        return F.cross_entropy(-torch.cdist(query, support).square(), episodes.query_labels[0])

    return _timed(backbone, loss)


def _backbone(work: Work) -> Conv4:
    torch.manual_seed(1)
    return Conv4(work.channels, work.size)


def _timed(net: nn.Module, loss: Callable[[], Tensor]) -> Cost:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    first = float(loss().detach())
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return Cost(statistics.median(seconds), first)


def _apart(side: Callable[[Work], Cost], work: Work) -> Cost:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(side, (work,))


def main() -> None:
    """Prints the table."""
    table = Table("step", "time, ours / plain (range)", title="A training step of Prototypical Networks, CPU")
    for work in WORKS:
        ratios = []
        for _ in range(ROUNDS):
            mine, peer = _apart(ours, work), _apart(plain, work)
            if abs(mine.loss - peer.loss) > 1e-3 * abs(peer.loss):
                raise SystemExit(f"{work.name}: the losses differ, {mine.loss} and {peer.loss}")
            ratios.append(mine.seconds / peer.seconds)
        table.add_row(work.name, f"{Ratio(statistics.median(ratios), min(ratios), max(ratios))}")
    Console().print(table)


if __name__ == "__main__":
    main()
