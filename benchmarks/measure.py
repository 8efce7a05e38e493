"""How a benchmark measures: time by turns in one process, memory in a process for each side.

Absolute times mean little on a shared machine, so what is reported is the ratio of ours to the peer's.
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop.core.trainer import peak_memory

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Ours divided by the peer's, below 1 where ours needs less.

    Args:
        median: over the rounds.
        low: the smallest of the rounds.
        high: the largest.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def time_ratio(ours: Work, peer: Work, rounds: int) -> Ratio:
    """Times both in turn, after one round that does not count, and sets each round's times in relation."""
    ours(), peer()
    ratios = [seconds(ours) / seconds(peer) for _ in range(rounds)]
    return ratio_of(ratios)


def ratio_of(ratios: list[float]) -> Ratio:
    """The rounds' ratios in one."""
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def memory_ratio(ours: Work, peer: Work, idle: Work) -> float:
    """The peaks of resident memory above what ``idle`` needs, ours divided by the peer's.

    Args:
        ours: runs in a process of its own, so it must be importable, as must the others.
        peer: the same work done the peer's way.
        idle: builds what both sides need and does no work.
    """
    floor = peak(idle)
    return (peak(ours) - floor) / (peak(peer) - floor)


def machine() -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, PyTorch {torch.__version__}"


def seconds(work: Work) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(work: Work) -> float:
    """Peak resident memory of a fresh process that does the work, in bytes. The work must be importable."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (work,))


def _peak_here(work: Work) -> float:
    work()
    return float(peak_memory())
