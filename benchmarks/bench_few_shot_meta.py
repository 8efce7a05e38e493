"""A meta-step of MAML and FOMAML on Omniglot's Conv4 against learn2learn, higher and TorchOpt, on the CPU.

Every side has the same initialisation, the same 32 episodes, batch norm by the batch's statistics, float32
and as many threads; that all have the same meta-gradient is checked. Ours is the whole step of the few-shot
learner but for the losses before and after adaptation, which the others do not compute and it measures every
tenth step (``trainer.monitor_freq``). Nothing is compiled. The allocator belongs to a process, so each side
has one of its own; they work by turns. A turn is two steps, of which the second is timed. Ours keeps freed
memory, as the command does; the others run as their users run them, or do the same with
``--keep-peers-memory``.

Beside the times stands their floor: the floating-point operations that the meta-gradient takes at least, over
the rate of a matrix product of 1024 x 1024 measured between the rounds. Convolutions can be faster than that.

The peers come from PyPI into a folder. Importing learn2learn's package wants gym and an extension in C, none
of which MAML needs, so its own ``algorithms/maml.py`` is imported without the rest. TorchOpt has no FOMAML.

Run: ``python benchmarks/bench_few_shot_meta.py [--threads 2] [--rounds 7] [--keep-peers-memory]``.
"""

import argparse
import importlib
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tarfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from innerloop.core import params as vector
from innerloop.core.allocator import keep_freed_memory
from innerloop.core.params import Params
from innerloop.core.trainer import peak_memory
from innerloop.fewshot.backbones import Conv4, ConvBlock
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.classifier import Classifier
from innerloop.fewshot.learners.gradient import Gradient
from innerloop.fewshot.learners.method import Problem
from measure import Ratio

WAYS, TASKS, SIZE, WIDTH, RATE = 5, 32, 28, 64, 0.4
PEERS = ("learn2learn", "higher", "torchopt")
VERSIONS = ("learn2learn==0.2.0", "higher==0.2.1", "torchopt==0.7.3", "optree==0.17.0", "graphviz==0.21")
Step = Callable[[], Params]


@dataclass(frozen=True)
class Work:
    """One meta-step."""

    second_order: bool
    steps: int
    queries: int

    def __str__(self) -> str:
        method = "MAML" if self.second_order else "FOMAML"
        return f"{method}, inner steps: {self.steps}, queries a class: {self.queries}"

    @property
    def peers(self) -> tuple[str, ...]:
        """Who has the method."""
        return PEERS if self.second_order else PEERS[:2]

    def episodes(self) -> Episodes:
        """Random images, always the same."""
        torch.manual_seed(1)
        classes = torch.randn(TASKS, WAYS, 1, SIZE, SIZE)
        repeated = classes.repeat(1, self.queries, 1, 1, 1)
        labels = torch.arange(WAYS).expand(TASKS, WAYS)
        query = repeated + torch.randn(repeated.shape)
        return Episodes(classes, labels, query, labels.repeat(1, self.queries), WAYS)


WORKS = tuple(Work(order, steps, queries) for order in (True, False) for steps, queries in ((1, 1), (5, 15)))


def net() -> Classifier:
    """The classifier all sides begin with."""
    torch.manual_seed(0)
    return Classifier(Conv4(1, SIZE, WIDTH, strided=True, running=False), WAYS)


class PlainNet(nn.Module):
    """The same net for the peers; higher patches no subclass of an abstract class."""

    def __init__(self) -> None:
        super().__init__()
        start = net()
        self.blocks = nn.Sequential(
            *(ConvBlock(1 if i == 0 else WIDTH, WIDTH, 2, False, False) for i in range(4))
        )
        self.head = nn.Linear(WIDTH, WAYS)
        with torch.no_grad():
            for mine, value in zip(self.parameters(), start.parameters(), strict=True):
                mine.copy_(value)

    def forward(self, images: Tensor) -> Tensor:
        """``M x 1 x 28 x 28`` to ``M x 5``."""
        logits: Tensor = self.head(self.blocks(images).mean((-2, -1)))
        return logits


def ours(work: Work) -> Step:
    """The package's learner."""
    method = Gradient(
        "maml" if work.second_order else "fomaml", RATE, work.steps, work.steps, tasks_at_once=TASKS
    )
    learner = method.build(Problem(1, SIZE, WAYS), lambda running: Conv4(1, SIZE, WIDTH, True, running))
    learner.module.load_state_dict(net().state_dict())
    learner.learner.monitors = False
    tasks = learner.tasks(work.episodes(), "random")

    def step() -> Params:
        found = learner.strategy(learner.learner, learner.learner.bundle(tasks))
        return vector.scaled(found.gradient, 1 / TASKS)

    return step


def learn2learn(work: Work) -> Step:
    """``learn2learn.algorithms.MAML``, a clone a task."""
    module = PlainNet()
    maml = importlib.import_module("learn2learn.algorithms.maml").MAML(
        module, RATE, first_order=not work.second_order
    )

    def task(support: Tensor, labels: Tensor, query: Tensor, query_labels: Tensor) -> None:
        clone = maml.clone()
        for _ in range(work.steps):
            clone.adapt(F.cross_entropy(clone(support), labels))
        (F.cross_entropy(clone(query), query_labels) / TASKS).backward()

    return _gathering(module, work, task)


def higher(work: Work) -> Step:
    """``higher.innerloop_ctx``; FOMAML by the gradient at the adapted weights of an untracked loop."""
    module = PlainNet()
    context = importlib.import_module("higher").innerloop_ctx

    def task(support: Tensor, labels: Tensor, query: Tensor, query_labels: Tensor) -> None:
        sgd = torch.optim.SGD(module.parameters(), lr=RATE)
        tracked = work.second_order
        with context(module, sgd, copy_initial_weights=False, track_higher_grads=tracked) as (model, inner):
            for _ in range(work.steps):
                inner.step(F.cross_entropy(model(support), labels))
            loss = F.cross_entropy(model(query), query_labels) / TASKS
            if tracked:
                loss.backward()
                return
            for p, gradient in zip(
                module.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                p.grad = gradient if p.grad is None else p.grad + gradient

    return _gathering(module, work, task)


def torchopt(work: Work) -> Step:
    """``torchopt.MetaSGD``, the module and the optimizer put back after each task."""
    module = PlainNet()
    library = importlib.import_module("torchopt")
    inner = library.MetaSGD(module, lr=RATE)
    start = library.extract_state_dict(module, by="reference")
    start_inner = library.extract_state_dict(inner, by="reference")
    theta = list(module.parameters())

    def task(support: Tensor, labels: Tensor, query: Tensor, query_labels: Tensor) -> None:
        for _ in range(work.steps):
            inner.step(F.cross_entropy(module(support), labels))
        (F.cross_entropy(module(query), query_labels) / TASKS).backward()
        library.recover_state_dict(module, start)
        library.recover_state_dict(inner, start_inner)

    return _gathering(module, work, task, theta)


def _gathering(
    module: nn.Module,
    work: Work,
    task: Callable[[Tensor, Tensor, Tensor, Tensor], None],
    theta: list[nn.Parameter] | None = None,
) -> Step:
    """A step that runs a task after the other, each adding to the parameters' gradients."""
    names = [name for name, _ in net().named_parameters()]
    theta = list(module.parameters()) if theta is None else theta
    episodes = work.episodes()

    def step() -> Params:
        for p in theta:
            p.grad = None
        for one in zip(
            episodes.support, episodes.support_labels, episodes.query, episodes.query_labels, strict=True
        ):
            task(*one)
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in zip(names, theta, strict=True)
        }

    return step


SIDES = {"ours": ours, "learn2learn": learn2learn, "higher": higher, "torchopt": torchopt}


@dataclass(frozen=True)
class Setup:
    """How a side's process is set up."""

    side: str
    work: Work
    threads: int
    keep: bool
    folder: Path


@dataclass(frozen=True)
class Turn:
    """One step of a side: its seconds, its processor seconds, and the process's peak of memory in bytes."""

    seconds: float
    processor: float
    peak: int


class Side:
    """A process that does steps when asked."""

    def __init__(self, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(setup, there), daemon=True)
        self._process.start()
        found = self._here.recv()
        if isinstance(found, str):
            raise SystemExit(f"{setup.side} cannot run: {found}")
        self.gradient: Params = found

    def turn(self) -> Turn:
        """Does a step."""
        self._here.send(True)
        turn: Turn = self._here.recv()
        return turn

    def close(self) -> None:
        """Ends the process."""
        self._here.send(False)
        self._process.join()


def _serve(setup: Setup, connection: Connection) -> None:
    torch.set_num_threads(setup.threads)
    if setup.keep:
        keep_freed_memory()
    try:
        _reach(setup.folder)
        step = SIDES[setup.side](setup.work)
        connection.send({name: tensor.detach().clone() for name, tensor in step().items()})
    except (ImportError, RuntimeError, AttributeError) as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    while connection.recv():
        step()  # in training a step follows another; what the other sides did has emptied the caches
        start, processor = time.perf_counter(), time.process_time()
        step()
        connection.send(Turn(time.perf_counter() - start, time.process_time() - processor, peak_memory()))


def fetch(folder: Path) -> None:
    """Puts the peers into a folder, if they are not there; all they depend on but PyTorch is in the list."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--target", folder, *VERSIONS[1:]], check=True)
    subprocess.run([*pip, "download", "--no-deps", "--dest", folder, VERSIONS[0]], check=True)
    (archive,) = folder.glob("learn2learn-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (folder / "complete").touch()


def _reach(folder: Path) -> None:
    sys.path.append(str(folder))
    for name in ("learn2learn", "learn2learn.algorithms"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder / "learn2learn-0.2.0" / name.replace(".", "/"))]
        sys.modules[name] = package


def operations(work: Work) -> float:
    """The floating-point operations of the meta-gradient: gradients, and products of twice as many each."""
    module = PlainNet()

    def gradient(images: int) -> float:
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(
                module(torch.randn(images, 1, SIZE, SIZE)), torch.arange(images) % WAYS
            ).backward()
        return float(counter.get_total_flops())

    support = work.steps * gradient(WAYS) * (3 if work.second_order else 1)
    return TASKS * (support + gradient(WAYS * work.queries))


def product_rate() -> float:
    """Floating-point operations a second of a matrix product, the best of some."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds)


def compare(work: Work, arguments: argparse.Namespace, table: Table) -> None:
    """Measures one step and enters its rows."""
    sides = {
        name: Side(
            Setup(
                name, work, arguments.threads, name == "ours" or arguments.keep_peers_memory, arguments.peers
            )
        )
        for name in ("ours", *work.peers)
    }
    mine = sides["ours"].gradient
    for name, side in sides.items():
        apart = float(vector.norm(vector.subtract(side.gradient, mine)) / vector.norm(mine))
        if apart > 2e-3:
            raise SystemExit(
                f"{work}: the meta-gradient of {name} differs from ours by {apart:.1e} of its length"
            )
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    rates = []
    for _ in range(arguments.rounds):
        rates.append(product_rate())
        for name, side in sides.items():
            turns[name].append(side.turn())
    for side in sides.values():
        side.close()
    floor = operations(work) / max(rates)
    times = {name: statistics.median(turn.seconds for turn in found) for name, found in turns.items()}
    fastest = min(work.peers, key=times.__getitem__)
    for name, found in turns.items():
        ratios = [peer.seconds / own.seconds for peer, own in zip(found, turns["ours"], strict=True)]
        work_ratios = [peer.processor / own.processor for peer, own in zip(found, turns["ours"], strict=True)]
        table.add_row(
            str(work) if name == "ours" else "",
            f"{name} (fastest peer)" if name == fastest else name,
            f"{1e3 * times[name]:.0f}",
            f"{1e3 * floor:.0f}",
            f"{Ratio(statistics.median(ratios), min(ratios), max(ratios))}",
            f"{Ratio(statistics.median(work_ratios), min(work_ratios), max(work_ratios))}",
            f"{found[-1].peak / turns['ours'][-1].peak:.2f}",
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep-peers-memory", action="store_true")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "innerloop" / "few-shot-peers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fetch(arguments.peers)
    table = Table(
        "step", "side", "ms", "floor, ms", "time / ours (range)", "processor / ours (range)", "peak / ours",
        title=f"A meta-step of {TASKS} tasks, {WAYS}-way 1-shot, {arguments.threads} threads, "
        f"{platform.processor() or platform.machine()}, PyTorch {torch.__version__}; nothing is compiled",
    )  # fmt: skip
    for work in WORKS:
        compare(work, arguments, table)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
