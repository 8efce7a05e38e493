"""Peak memory: of exact MAML over the number of inner steps, and of several runs against their estimates.

The first table sets the adjoint recursion beside MAML as learn2learn, higher and TorchOpt do it, written out
here: every inner step keeps its graph (``create_graph=True``) and one backward pass runs through all of them.
The second runs two meta-steps of each configuration and compares their peak with what
``innerloop doctor --estimate`` says. Every figure is the peak resident memory of a process of its own.

The model is SmolLM2-135M where it is in the cache, else a random Llama, which the tables then say. Run:
``python benchmarks/bench_memory.py [--picture FILE.svg] [--steps 1 2 5 10 20] [--only curves|estimates]``.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from innerloop.core.params import Params
from innerloop.core.task import Batch
from innerloop.llm import smollm
from innerloop.llm.algorithms import (
    build_inner_loop,
    build_learner,
    build_strategy,
    model_spec,
    set_modes,
)
from innerloop.llm.config import Config, load_config
from innerloop.llm.estimate import RowShape, estimate
from innerloop.llm.loss import response_loss
from innerloop.llm.model import load_model
from measure import peak
from memory_run import Called, RandomRows, meta_steps
from models import save_random_llama

CURVE = RowShape(tokens=32, answer=16)
RUN = RowShape(tokens=64, answer=32)
STEPS = (1, 2, 5, 10, 20)

RUNS = {
    "FOMAML, all parameters": ("fomaml_sft", "meta.inner_max_grad_norm=null"),
    "the same, gradients clipped": ("fomaml_sft",),
    "the same, checkpointing": (
        "fomaml_sft",
        "meta.inner_max_grad_norm=null",
        "model.enable_gradient_checkpointing=true",
    ),
    "the same, bfloat16 weights": ("fomaml_sft", "meta.inner_max_grad_norm=null", "model.dtype=bfloat16"),
    "Reptile, all parameters": ("reptile_sft",),
    "exact MAML, all parameters, hvp=central": ("maml_sft", "meta.hvp=central"),
    # Random rows never come again, so nothing is kept of their frozen layers.
    "META-LORA": ("meta_lora", "model.frozen_prefix_mib=0"),
    "exact MAML, LoRA": ("meta_lora", "meta.algorithm=maml", "model.frozen_prefix_mib=0"),
}


def settings(model: str, name: str, *overrides: str) -> Config:
    small = ("trainer.device=cpu", "meta.meta_batch_size=2", "meta.num_inner_steps=2")
    rows = ("meta.inner_batch_size=4", "meta.query_batch_size=4")
    return load_config(name, None, [f"model.partial_pretrain={model}", *small, *rows, *overrides])


def curve_settings(model: str, steps: int) -> Config:
    """Exact MAML on the shipped adapter."""
    rows = ("meta.inner_batch_size=2", "meta.query_batch_size=2")
    exact = ("meta.algorithm=maml", "meta.inner_max_grad_norm=null", "meta.inner_lr=0.1")
    return settings(model, "meta_lora", *exact, *rows, f"meta.num_inner_steps={steps}")


def adjoint(model: str, steps: int) -> Params:
    """Ours: the meta-gradient of one task."""
    config = curve_settings(model, steps)
    loaded = load_model(model_spec(config))
    set_modes(config, loaded.model)
    learner = build_learner(config, loaded.model)
    strategy = build_strategy(config.meta, build_inner_loop(config.meta, list(learner.theta)))
    task = RandomRows(config, CURVE, loaded.model.config.vocab_size).draw()
    return strategy(learner, task).gradient


def unrolled(model: str, steps: int) -> Params:
    """The peers' way: one graph through all inner steps."""
    config = curve_settings(model, steps)
    loaded = load_model(model_spec(config))
    set_modes(config, loaded.model)
    called = Called(loaded.model)
    theta = {f"model.{name}": p for name, p in loaded.trainable_parameters().items()}
    task = RandomRows(config, CURVE, loaded.model.config.vocab_size).draw()
    rate = config.meta.inner_lr

    def loss_at(point: Params, batch: Batch) -> Tensor:
        value: Tensor = functional_call(called, point, (response_loss, batch))
        return value

    point: Params = dict(theta)
    for batch in task.support_batches:
        gradient = torch.autograd.grad(loss_at(point, batch), list(point.values()), create_graph=True)
        point = {name: p - rate * g for (name, p), g in zip(point.items(), gradient, strict=True)}
    gradient = torch.autograd.grad(loss_at(point, task.query_batch), list(theta.values()))
    return {name.removeprefix("model."): g for name, g in zip(theta, gradient, strict=True)}


def build(model: str) -> None:
    """What both sides need before they start."""
    load_model(model_spec(curve_settings(model, 1)))


def curves(console: Console, model: str, steps: Sequence[int], picture: Path | None) -> None:
    """Both ways over the number of inner steps."""
    ours, peers = adjoint(model, steps[0]), unrolled(model, steps[0])
    apart = max(float((ours[name] - peers[name]).norm() / peers[name].norm()) for name in peers)
    if apart > 1e-3:
        raise SystemExit(f"the two gradients differ by {apart:.1e} of a tensor's length")
    table = Table(
        "inner steps", "adjoint", "of its peak at the first", "unrolled", "of its peak at the first"
    )
    floor = peak(partial(build, model))
    heights: dict[str, list[float]] = {"adjoint recursion (innerloop)": [], "unrolled": []}
    for count in steps:
        found = []
        for work, line in zip((adjoint, unrolled), heights.values(), strict=True):
            line.append(peak(partial(work, model, count)))
            found += [decimal(int(line[-1])), f"{line[-1] / line[0]:.2f}"]
        table.add_row(f"{count}", *found)
    table.title = f"Exact MAML on LoRA; the model and libraries alone take {decimal(int(floor))}"
    console.print(table)
    if picture is not None:
        draw(list(steps), heights, picture)


def draw(steps: list[int], heights: dict[str, list[float]], picture: Path) -> None:
    """The two curves as a picture."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, line), style in zip(heights.items(), ("o-", "s--"), strict=True):
        axes.plot(steps, [height / 1e9 for height in line], style, label=name)
    axes.set(xlabel="inner steps K", ylabel="peak memory of the process, GB", ylim=(0, None))
    axes.set_xticks(steps)
    axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def estimates(console: Console, model: str) -> None:
    """Measured peaks beside their estimates."""
    table = Table(
        "run", "estimated", "measured", "measured / estimated", "of the parameters, without libraries"
    )
    for title, words in RUNS.items():
        config = settings(model, *words)
        expected = estimate(config, RUN)
        needed = expected.peak
        free = psutil.virtual_memory().available
        if needed.size > 0.8 * free:
            console.print(f"{title}: left out, {decimal(needed.size)} needed and {decimal(free)} free")
            continue
        measured = peak(partial(meta_steps, config, RUN))
        libraries = next(part.size for part in needed.parts if part.name == "process")
        table.add_row(
            title,
            decimal(needed.size),
            decimal(int(measured)),
            f"{measured / needed.size:.2f}",
            f"{(measured - libraries) / (4 * expected.parameters):.2f}",
        )
        console.print(f"{title}: measured / estimated {measured / needed.size:.2f}")
    console.print(table)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, help="draw the curves into this file")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="numbers of inner steps")
    parser.add_argument("--only", choices=("curves", "estimates"), help="one of the two tables")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        model = smollm.ALIAS
        if not smollm.is_cached():
            model = str(save_random_llama(Path(folder)))
            console.print(f"{smollm.ALIAS} is not in the cache; a random Llama of 12 layers stands for it")
        if options.only != "estimates":
            curves(console, model, options.steps, options.picture)
        if options.only != "curves":
            estimates(console, model)


if __name__ == "__main__":
    main()
