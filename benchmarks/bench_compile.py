"""``model.compile``: gradients of META-LORA through compiled decoder layers against the same layers plain.

SmolLM2 with adapters in the upper half of its layers, batches of four rows of several lengths, packed as a
run packs them; both sides have the same gradients, which is checked. The first pass compiles. A first process
begins with an empty cache of compiled code, a second one finds what the first left. Both sides are timed by
turns.

Run: ``python benchmarks/bench_compile.py [--rounds 5]``.
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from dataclasses import dataclass

import torch
from rich.console import Console

from innerloop.core import params as vector
from innerloop.core.allocator import keep_freed_memory
from innerloop.core.learner.base import Learner
from innerloop.core.params import Params
from innerloop.llm.algorithms import build_learner, model_spec, set_modes
from innerloop.llm.compiled import CACHE_VARIABLE, compile_layers
from innerloop.llm.config import load_config
from innerloop.llm.data.tokens import TokenBatch, TokenizedRow, collate
from innerloop.llm.model import load_model
from measure import Ratio, time_ratio

LENGTHS = ((96, 80, 70, 50), (120, 110, 90, 30), (64, 60, 60, 40), (140, 100, 80, 20))


@dataclass(frozen=True)
class Found:
    """What a process measured: the first pass's seconds, compiled over plain time, gradients apart."""

    first: float
    ratio: Ratio
    apart: float


def side(compiled: bool) -> Learner:
    """The learner of the shipped META-LORA settings."""
    config = load_config("meta_lora", None, ["model.lora_layers=upper_half", "trainer.device=cpu"])
    model = load_model(model_spec(config)).model
    set_modes(config, model)
    if compiled:
        compile_layers(model, torch.device("cpu"))
    return build_learner(config, model)


def batches() -> list[TokenBatch]:
    """Rows of random tokens, always the same, three quarters of each response."""
    made = torch.Generator().manual_seed(0)
    found = []
    for lengths in LENGTHS:
        rows = [
            TokenizedRow(
                tuple(torch.randint(5, 1000, (length,), generator=made).tolist()),
                tuple(place >= length // 4 for place in range(length)),
            )
            for length in lengths
        ]
        found += collate(rows, pad_id=0, packed=True)
    return found


def gradients(learner: Learner, given: list[TokenBatch]) -> list[Params]:
    """One of each batch."""
    with learner.excursion() as theta:
        return [learner.gradient(theta, batch)[1] for batch in given]


def measure(rounds: int, threads: int) -> Found:
    """Both sides in this process."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    given, plain, compiled = batches(), side(False), side(True)
    wanted = gradients(plain, given)
    began = time.perf_counter()
    got = gradients(compiled, given)
    first = time.perf_counter() - began
    apart = max(
        float(vector.norm(vector.subtract(mine, theirs)) / vector.norm(theirs))
        for mine, theirs in zip(got, wanted, strict=True)
    )
    if apart > 1e-3:
        raise SystemExit(f"the gradients differ by {apart:.1e} of their length")
    return Found(
        first, time_ratio(lambda: gradients(compiled, given), lambda: gradients(plain, given), rounds), apart
    )


def main() -> None:
    """Prints a line a process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    console = Console()
    tokens = sum(map(sum, LENGTHS))
    console.print(
        f"{len(LENGTHS)} gradients, {tokens} tokens, {arguments.threads} threads, {platform.machine()}"
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE_VARIABLE] = cache
        for state in ("empty", "filled"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (arguments.rounds, arguments.threads))
            console.print(
                f"  cache {state}: first pass {found.first:.0f} s, then time compiled / plain {found.ratio}, "
                f"gradients {found.apart:.0e} apart"
            )


if __name__ == "__main__":
    main()
