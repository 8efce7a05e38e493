"""Slices of a bundle's tasks, worked on beside each other."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def for_each(function: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """A function's results for all parts, without graphs; on a CPU by as many threads as PyTorch may use.

    Each thread does its operations alone. To share out every operation among the threads would take a
    rendezvous an operation, and send what one operation writes through the caches of all.
    """

    def alone(part: Part) -> Result:
        with torch.no_grad():
            return function(part)

    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1 or device.type != "cpu":
        return [alone(part) for part in parts]
    return list(_pool(threads).map(alone, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    all_started = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question gives it the number that all begin with
        torch.set_num_threads(1)
        all_started.wait()

    pool = ThreadPoolExecutor(threads, "tasks", begin)
    for _ in range(threads):
        pool.submit(int)
    all_started.wait()
    torch.set_num_threads(threads)  # it is each thread's own, but also what threads started later begin with
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the threads are not in the child
