"""One META-LORA meta-step on MATH: innerloop against the plain loop with PEFT and transformers.

The peer is the shortest loop that does it: rows padded on the right, by a trainer of verl's kind all to
``max_length``, or else to the longest of their micro-batch; logits at every position; no monitoring. Ours is
the strategy as ``innerloop train --config-name meta_lora`` runs it, monitoring included, once on rows that it
has never seen and once on rows of an earlier step, whose frozen layers it need not run again. All sides take
the same steps on the same rows from the same adapter in float32; that they come to the same meta-gradient is
checked before anything is measured. Run on a quiet machine::

    INNERLOOP_DATA=DIR python benchmarks/bench_meta_lora.py
"""

import argparse
import os
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.learner import Learner
from innerloop.core.metagrad import Strategy
from innerloop.core.params import Params
from innerloop.llm.algorithms import build_inner_loop, build_learner, build_strategy, model_spec, set_modes
from innerloop.llm.config import load_config
from innerloop.llm.data.presets.base import Request
from innerloop.llm.data.presets.math import read_math
from innerloop.llm.data.presets.reading import Collector
from innerloop.llm.data.tokens import TokenizedRow
from innerloop.llm.episodes import batcher_of
from innerloop.llm.model import LoadedModel, load_model
from innerloop.llm.prefix import FrozenPrefix
from innerloop.llm.tasks import Batcher, RowsTask
from measure import machine, memory_ratio, ratio_of, seconds
from models import padded, with_pytorch_products

MAX_LENGTH = 512
MICRO_ROWS = 4  # verl's micro_batch_size_per_gpu
# Set, it shows what is left of the gain on a processor for which MKL is as fast as oneDNN.
PEER_HAS_OUR_PRODUCTS = "INNERLOOP_PEER_PRODUCTS" in os.environ
CONFIG = load_config(
    "meta_lora", overrides=[f"data.max_length={MAX_LENGTH}", "model.attn_implementation=auto"]
)


@dataclass(frozen=True)
class Size:
    """How large the step is.

    Args:
        steps: inner steps.
        rows: of each support batch and of the query batch.
    """

    steps: int
    rows: int


@dataclass(frozen=True)
class Ours:
    """innerloop's side."""

    loaded: LoadedModel
    learner: Learner
    strategy: Strategy
    batcher: Batcher


@cache
def ours(size: Size) -> Ours:
    """The model, its adapter moved off its start, and what steps it, as a run would build them."""
    config = replace(CONFIG, meta=replace(CONFIG.meta, num_inner_steps=size.steps))
    loaded = load_model(model_spec(config))
    set_modes(config, loaded.model)
    move_adapter(loaded)
    learner = build_learner(config, loaded.model)
    strategy = build_strategy(config.meta, build_inner_loop(config.meta, list(learner.theta)))
    batcher = batcher_of(config, loaded.tokenizer, loaded.device, loaded.model)
    return Ours(loaded, learner, strategy, batcher)


@cache
def peer() -> LoadedModel:
    """The same model as PEFT and transformers have it, with the attention transformers chooses itself."""
    loaded = load_model(replace(model_spec(CONFIG), attn_implementation="sdpa"))
    if not PEER_HAS_OUR_PRODUCTS:
        with_pytorch_products(loaded.model)
    move_adapter(loaded)
    return loaded


def move_adapter(loaded: LoadedModel) -> None:
    """A new adapter's B is 0, and then A has no gradient; one that has been trained is neither."""
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in loaded.trainable_parameters().values():
            p.copy_(0.02 * torch.randn(p.shape, generator=made))


@cache
def episode(size: Size) -> RowsTask:
    """Rows that fit, of all subjects as MATH has them, each in one batch only."""
    rows = math_rows()
    made = torch.Generator().manual_seed(0)
    drawn = [rows[i] for i in torch.randperm(len(rows), generator=made)[: size.rows * (size.steps + 1)]]
    *support, query = [drawn[at : at + size.rows] for at in range(0, len(drawn), size.rows)]
    return RowsTask("math", support, query, ours(size).batcher)


def math_rows() -> list[TokenizedRow]:
    """Rows of the training set that are not longer than ``MAX_LENGTH``, sixty or fewer of a subject."""
    if "INNERLOOP_DATA" not in os.environ:
        raise SystemExit("set INNERLOOP_DATA to the folder that holds math/train.jsonl")
    request = Request(source_dir=Path(os.environ["INNERLOOP_DATA"]))
    batcher = batcher_of(CONFIG, peer().tokenizer, peer().device)
    found: list[TokenizedRow] = []
    for subject, problems in read_math(request, Collector()).items():
        for row in problems.train[:60]:
            try:
                found.append(batcher.tokenize_row(row, subject))
            except InputError:
                continue  # longer than max_length, which the settings' own truncation=error leaves out
    return found


def innerloop_step(size: Size, known: bool) -> Params:
    """The meta-gradient as innerloop comes to it.

    Args:
        size: of the step.
        known: whether its rows were drawn before.
    """
    side, task = ours(size), episode(size)
    if not known:
        forgetful = FrozenPrefix(side.loaded.model, CONFIG.model.frozen_prefix_mib << 20)  # type: ignore[arg-type]
        task = replace(task, batcher=replace(side.batcher, prefix=forgetful))
    return side.strategy(side.learner, task).gradient


def plain_step(size: Size, to_max_length: bool) -> Params:
    """The meta-gradient by a plain loop: adapt in place, take the query gradient, put the adapter back."""
    loaded, meta, task = peer(), CONFIG.meta, episode(size)
    theta = loaded.trainable_parameters()
    start = [p.detach().clone() for p in theta.values()]
    for rows in task.support_rows:
        backward(loaded, rows, to_max_length)
        torch.nn.utils.clip_grad_norm_(theta.values(), float(meta.inner_max_grad_norm or "inf"))
        with torch.no_grad():
            for p in theta.values():
                p -= meta.inner_lr * (torch.zeros_like(p) if p.grad is None else p.grad)
    backward(loaded, task.query_rows, to_max_length)
    gradient = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in theta.items()}
    with torch.no_grad():
        for p, old in zip(theta.values(), start, strict=True):
            p.copy_(old)
    return gradient


def backward(loaded: LoadedModel, rows: list[TokenizedRow], to_max_length: bool) -> None:
    """Puts the gradient of the rows' mean loss into the parameters, a micro-batch at a time."""
    loaded.model.zero_grad()
    targets = sum(row.target_count for row in rows)
    for at in range(0, len(rows), MICRO_ROWS):
        ids, seen, learned = padded(rows[at : at + MICRO_ROWS], MAX_LENGTH if to_max_length else None)
        logits: Tensor = loaded.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        ((losses * learned[:, 1:].flatten()).sum() / targets).backward()


def idle(size: Size) -> None:
    """What all sides need before they start."""
    ours(size), peer(), episode(size)


def check(size: Size) -> float:
    """The largest distance between the meta-gradients, as a share of their length."""
    wanted = plain_step(size, to_max_length=True)
    found = [
        plain_step(size, to_max_length=False),
        *(innerloop_step(size, known) for known in (False, True)),
    ]
    return max(float(vector.norm(vector.subtract(got, wanted)) / vector.norm(wanted)) for got in found)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3, help="inner steps (default: 3)")
    parser.add_argument("--rows", type=int, default=8, help="rows of every batch (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    options = parser.parse_args()
    size = Size(options.steps, options.rows)
    idle(size)
    console = Console()
    apart = check(size)
    if apart > 1e-3:
        raise SystemExit(f"the meta-gradients differ by {apart:.1e} of their length")
    task = episode(size)
    rows = [row for batch in (*task.support_rows, task.query_rows) for row in batch]
    tokens = sum(len(row.input_ids) for row in rows)
    console.print(f"{machine()}. Meta-gradients {apart:.0e} apart; {tokens / len(rows):.0f} tokens a row.")
    table = Table(
        "innerloop, rows", "plain loop padded", "tokens a second, times", "peak memory, ours / plain"
    )
    mine = {known: partial(innerloop_step, size, known) for known in (False, True)}
    plain = {to_max_length: partial(plain_step, size, to_max_length) for to_max_length in (True, False)}
    rounds = []
    for number in range(options.rounds):
        # All in turn in every round; the check has warmed them up.
        took = {work: seconds(work) for work in (*mine.values(), *plain.values())}
        rounds.append(took)
        speeds = [f"{took[other] / took[own]:.2f}" for own in mine.values() for other in plain.values()]
        console.print(f"round {number + 1}: {', '.join(speeds)}")
    for known, own in mine.items():
        for to_max_length, other in plain.items():
            # The plain loop over ours: how many times as many real tokens ours takes in a second.
            speed = ratio_of([took[other] / took[own] for took in rounds])
            memory = "-" if options.no_memory else f"{memory_ratio(own, other, partial(idle, size)):.2f}"
            table.add_row(
                "drawn before" if known else "new",
                f"to {MAX_LENGTH}" if to_max_length else "to the longest",
                f"{speed}",
                memory,
            )
    console.print(table)


if __name__ == "__main__":
    main()
