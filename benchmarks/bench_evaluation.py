"""An evaluation grid of adapted models: innerloop against adapting, scoring and generating cell by cell.

The peer is the plain loop with PEFT and transformers: for every shot count and run it puts the adapter back,
takes the inner steps on padded batches, reads the test rows for their losses and has ``generate`` answer
them, in batches of 16 padded on the left. Ours is ``innerloop evaluate`` as its users call it, loading the
model included. Both take the same steps on the same shots; that they come to the same losses, token
accuracies and graded answers is checked. A round is one function-vectors task. Run on a quiet machine::

    INNERLOOP_DATA=DIR python benchmarks/bench_evaluation.py
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from innerloop.cli.main import main as command
from innerloop.llm.adaptable import Adaptable, load_adaptable
from innerloop.llm.config import Config, load_config
from innerloop.llm.data.prepared import load_task
from innerloop.llm.data.tokens import TokenizedRow, decode_answer
from innerloop.llm.episodes import row_keys
from innerloop.llm.evaluate.curves import RESULTS_FILE, evaluate
from innerloop.llm.evaluate.graders import grade_all
from innerloop.llm.evaluate.scoring import TestSet, make_test_set
from innerloop.llm.evaluate.settings import EvaluationSettings
from innerloop.llm.evaluate.shots import draw_shots
from innerloop.llm.generate import stop_ids
from innerloop.llm.tasks import RowsTask, shots_task
from measure import machine, memory_ratio, seconds
from models import padded, with_pytorch_products

TASKS = ("antonym", "country-capital", "english-german", "present-past")
ROWS_AT_ONCE = 16
SETTINGS = ("data.max_length=128", "meta.inner_batch_size=8", "meta.inner_lr=0.3")


@dataclass(frozen=True)
class Grid:
    """What is evaluated.

    Args:
        data: folder of prepared tasks.
        shots: shot counts.
        runs: draws of the shots for each count.
        test_rows: rows scored in each cell.
    """

    data: Path
    shots: tuple[int, ...]
    runs: int
    test_rows: int

    def cells(self) -> list[tuple[int, int]]:
        """Shot counts and runs; without shots every run is the same, and the peer has only one too."""
        return [(shots, run) for shots in self.shots for run in range(self.runs if shots else 1)]


def config() -> Config:
    """META-LORA as it is shipped, with smaller batches."""
    return load_config("meta_lora", overrides=list(SETTINGS))


def ours(grid: Grid, task: str) -> dict[tuple[int, int], dict[str, float]]:
    """The grid by ``innerloop evaluate``."""
    with tempfile.TemporaryDirectory() as folder:
        settings = EvaluationSettings(
            model_path="smollm2-135m",
            model_type="base",
            data_dir=grid.data,
            output_dir=Path(folder) / "results",
            tasks=(task,),
            n_shots=grid.shots,
            n_runs=grid.runs,
            max_test_samples=grid.test_rows,
        )
        lines = (evaluate(settings, config()) / RESULTS_FILE).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["budget"], row["run"]): row["metrics"] for row in rows}


def plain(grid: Grid, task: str) -> dict[tuple[int, int], dict[str, float]]:
    """The same grid by the plain loop."""
    with_sdpa = load_config("meta_lora", overrides=[*SETTINGS, "model.attn_implementation=sdpa"])
    model = load_adaptable("smollm2-135m", with_sdpa)
    with_pytorch_products(model.loaded.model)
    data = load_task(grid.data, task, row_keys(model.config), needs=("support", "test"))
    tests = make_test_set(data.test[: grid.test_rows], (), "exact", model.batcher)
    theta = model.loaded.trainable_parameters()
    start = {name: p.detach().clone() for name, p in theta.items()}
    found = {}
    for shots, run in grid.cells():
        with torch.no_grad():
            for name, p in theta.items():
                p.copy_(start[name])
        if shots:
            drawn = [data.support[index] for index in draw_shots(task, data.support, shots, run, 0)]
            steps, size = model.config.meta.num_inner_steps, model.config.meta.inner_batch_size
            tokens = model.batcher.tokenize(drawn, task)
            episode = shots_task(task, tokens, steps, size, model.batcher, 0)
            assert isinstance(episode, RowsTask)
            for rows in episode.support_rows:
                step(model, list(rows))
        found[shots, run] = marks(model, tests)
    return found


def step(model: Adaptable, rows: list[TokenizedRow]) -> None:
    """One inner step, in place."""
    theta, meta = model.loaded.trainable_parameters(), model.config.meta
    ids, seen, learned = padded(rows)
    logits = model.loaded.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    chosen = learned[:, 1:].flatten()
    model.loaded.model.zero_grad()
    ((losses * chosen).sum() / chosen.sum()).backward()
    torch.nn.utils.clip_grad_norm_(theta.values(), float(meta.inner_max_grad_norm or "inf"))
    with torch.no_grad():
        for p in theta.values():
            p -= meta.inner_lr * (torch.zeros_like(p) if p.grad is None else p.grad)


@torch.no_grad()
def marks(model: Adaptable, tests: TestSet) -> dict[str, float]:
    """Loss, token accuracy and graded answers of the model as it is."""
    module, tokenizer = model.loaded.model, model.loaded.tokenizer
    loss = correct = targets = 0.0
    answers: list[str] = []
    for at in range(0, len(tests.tokens), ROWS_AT_ONCE):
        ids, seen, learned = padded(list(tests.tokens[at : at + ROWS_AT_ONCE]))
        logits = module(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        chosen = learned[:, 1:].flatten()
        loss += float((losses * chosen).sum())
        correct += float(((logits.argmax(-1) == ids[:, 1:]).flatten() * chosen).sum())
        targets += float(chosen.sum())
        prompts = tests.prompts[at : at + ROWS_AT_ONCE]
        width = max(map(len, prompts))
        given = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        counts = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        stops = stop_ids(module, tokenizer)
        output = module.generate(
            input_ids=given,
            attention_mask=counts,
            max_new_tokens=tests.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=tokenizer.pad_token_id,
        )
        for row in output[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in stops), len(row))
            answers.append(decode_answer(row[:end], tokenizer))
    references = [row.response if row.answer is None else row.answer for row in tests.rows]
    grades = grade_all("exact", answers, references)
    return {
        "accuracy": statistics.fmean(grade.correct for grade in grades),
        "strict_accuracy": statistics.fmean(grade.strict for grade in grades),
        "loss": loss / targets,
        "token_accuracy": correct / targets,
    }


def prepare(folder: Path, tasks: tuple[str, ...]) -> Path:
    """The tasks as ``innerloop data prepare`` writes them."""
    if "INNERLOOP_DATA" not in os.environ:
        raise SystemExit("set INNERLOOP_DATA to the folder that holds function_vectors")
    words = ["--source-dir", os.environ["INNERLOOP_DATA"], "--output-dir", str(folder), "--tasks", *tasks]
    if command(["data", "prepare", "function-vectors", *words]):
        raise SystemExit("the tasks could not be prepared")
    return folder


def difference(got: dict[str, float], wanted: dict[str, float]) -> float:
    """How far apart two cells are, in the mark that differs most."""
    return max(abs(got[name] - value) / max(abs(value), 1.0) for name, value in wanted.items())


def main() -> None:
    """Prints one line a task and the median."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5, 10, 25, 50])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--test-rows", type=int, default=16)
    parser.add_argument(
        "--memory", action="store_true", help="also compare the peak memory, on the first task"
    )
    options = parser.parse_args()
    console = Console()
    console.print(f"{machine()}.")
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder) / "data", tuple(options.tasks))
        grid = Grid(data, tuple(options.shots), options.runs, options.test_rows)
        ratios: list[float] = []
        for task in options.tasks:
            results: list[dict[tuple[int, int], dict[str, float]]] = []
            peer = seconds(lambda task=task, into=results: into.append(plain(grid, task)))
            mine = seconds(lambda task=task, into=results: into.append(ours(grid, task)))
            wanted, got = results
            if wanted.keys() != got.keys():
                raise SystemExit(f"{task}: the two did other cells")
            apart = max(difference(got[cell], wanted[cell]) for cell in wanted)
            if apart > 1e-3:
                raise SystemExit(f"{task}: the marks differ by up to {apart:.1e}")
            ratios.append(mine / peer)
            console.print(
                f"{task}: {len(wanted)} cells, time ours / plain {ratios[-1]:.2f}, marks {apart:.0e} apart"
            )
        low, high = min(ratios), max(ratios)
        console.print(f"time, ours / plain: {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
        if options.memory:
            first = options.tasks[0]
            memory = memory_ratio(partial(ours, grid, first), partial(plain, grid, first), config)
            console.print(f"peak memory, ours / plain: {memory:.2f}")


if __name__ == "__main__":
    main()
