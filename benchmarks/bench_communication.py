"""What two processes send each other in a meta-step, against what docs/scaling.md says they do.

Counts the bytes that this process's TCP sockets have sent, as the kernel knows them, so nothing is left out:
tensors, words and protocol. Linux only; gloo, on the CPU. Run: ``python benchmarks/bench_communication.py``.
"""

import multiprocessing
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import InPlaceLearner, Learner, ShardedLearner
from innerloop.core.metagrad import Exact, FirstOrder, Reptile, Strategy
from innerloop.core.parallel import World, joined
from innerloop.core.task import FixedTask, Task
from innerloop.core.tracking import JsonlTracker
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings
from innerloop.llm.config.schema import FsdpConfig, WrapPolicy
from innerloop.llm.sharding import shard
from models import next_token_loss, random_llama, random_tokens

PROCESSES, TASKS, LAYERS, ROWS, TOKENS = 2, 4, 2, 4, 8
STRATEGIES: dict[str, Callable[[InnerLoop], Strategy]] = {
    "fomaml": FirstOrder,
    "reptile": Reptile,
    "maml": Exact,
}


@dataclass(frozen=True)
class Case:
    """A run to measure.

    Args:
        adapts: ``lora`` or ``full``.
        sharded: whether the model is.
        strategy: a name in ``STRATEGIES``; maml by central differences.
        steps: of the inner loop.
    """

    adapts: str
    sharded: bool
    strategy: str
    steps: int


CASES = (
    *(Case("lora", False, "fomaml", steps) for steps in (1, 8)),
    Case("full", False, "fomaml", 1),
    *(Case("lora", True, strategy, 3) for strategy in ("fomaml", "reptile", "maml")),
    *(Case("full", True, strategy, 3) for strategy in ("fomaml", "reptile", "maml")),
)


def build(adapts: str) -> PreTrainedModel | PeftModel:
    """The model, in the same state everywhere."""
    model = random_llama(LAYERS)
    if adapts == "full":
        return model
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def rows_of(tokens: Tensor, place: int, count: int) -> Tensor:
    """A process's share of the rows of a batch."""
    return tokens[place::count]


def share_of_loss(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """The loss of some of a batch's rows, of which all are as long, as a share of the batch's."""
    return next_token_loss(model, tokens) * len(tokens) / ROWS


class Drawn:
    """Gives the same tasks at every step, and writes down what has been sent by then."""

    def __init__(self, steps: int) -> None:
        batches = random_tokens(TASKS, steps + 1, ROWS, TOKENS)
        self.tasks: list[Task] = [
            FixedTask(f"{n}", each[:-1].unbind(), each[-1]) for n, each in enumerate(batches)
        ]
        self.sent: list[int] = []

    def sample(self) -> list[Task]:
        """The tasks of the next step."""
        self.sent.append(bytes_sent())
        return self.tasks

    def state_dict(self) -> dict[str, int]:
        """There is none."""
        return {}

    def load_state_dict(self, _state: object) -> None:
        """There is none."""


def measure(rank: int, port: int, channel: "multiprocessing.SimpleQueue[list[int]]") -> None:
    """Runs all cases as one of the processes and tells what it sent in a meta-step of each."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port)}
    with joined() as world, tempfile.TemporaryDirectory() as folder:
        channel.put([sent_by(case, world, Path(folder) / f"{n}") for n, case in enumerate(CASES)])


def sent_by(case: Case, world: World, folder: Path) -> int:
    """Takes three meta-steps and tells what this process sent in the last."""
    drawn = Drawn(case.steps)
    learner, world = _learner(case, build(case.adapts), world)
    inner = InnerLoop(SGD(), LearningRates(0.01, list(learner.theta), case.steps), case.steps)
    trainer = MetaTrainer(
        learner,
        STRATEGIES[case.strategy](inner),
        drawn,
        OuterSettings(1e-3, 3, "sgd"),
        RunSettings(world.from_main(lambda: folder), save_every=0),
        lambda step: JsonlTracker(folder, step),
        world=world,
    )
    trainer.fit()
    return drawn.sent[2] - drawn.sent[1]


def _learner(case: Case, model: PreTrainedModel | PeftModel, world: World) -> tuple[Learner, World]:
    if not case.sharded:
        return InPlaceLearner(model, next_token_loss, hessian_product="central"), world
    sharding = shard(model, FsdpConfig(WrapPolicy(None), None, False, -1), world, torch.device("cpu"))
    full = case.adapts == "full"
    loss, cut = (share_of_loss, rows_of) if full else (next_token_loss, None)
    return ShardedLearner(model, loss, sharding.holders, cut), sharding.world


def predicted(case: Case) -> float:
    """Bytes that a process sends in a meta-step, by the formulas of docs/scaling.md."""
    model = build(case.adapts)
    adapted = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(4 * p.numel() for p in model.parameters() if case.adapts == "full" or not p.requires_grad)
    others = (PROCESSES - 1) / PROCESSES
    if not case.sharded:
        return 2 * others * adapted
    gradients = {"fomaml": case.steps + 1, "reptile": case.steps, "maml": 3 * case.steps + 1}[case.strategy]
    forwards = gradients + (3 if case.strategy == "reptile" else 2)
    if case.adapts == "lora":
        walked = -(-TASKS // PROCESSES)
        return others * (walked * (forwards + gradients) * weights + 2 * adapted)
    # gloo scatters a sum by making all of it everywhere, twice what NCCL sends.
    return others * TASKS * (forwards + gradients + 2 * gradients) * weights


def bytes_sent() -> int:
    """What the TCP sockets of this process have sent since they were opened."""
    total = 0
    for path in Path("/proc/self/fd").iterdir():
        try:
            descriptor = int(path.name)
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:
            continue  # the listing's own descriptor is closed by now
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                # tcpi_bytes_sent of struct tcp_info, linux/tcp.h
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
                total += struct.unpack_from("<Q", told, 200)[0]
    return total


def most_sent() -> list[int]:
    """What the process that sends more sends in a meta-step, case by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    channel = context.SimpleQueue()
    running = [context.Process(target=measure, args=(rank, port, channel)) for rank in range(PROCESSES)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process ended with {process.exitcode}")
    return [max(sent) for sent in zip(*(channel.get() for _ in running), strict=True)]


def main() -> None:
    """Prints a line a case."""
    table = Table("adapts", "sharded", "strategy", "K", "predicted", "sent", "sent / predicted", box=None)
    for case, sent in zip(CASES, most_sent(), strict=True):
        wanted = predicted(case)
        table.add_row(
            case.adapts,
            "yes" if case.sharded else "no",
            case.strategy,
            str(case.steps),
            f"{wanted / 1e6:.2f} MB",
            f"{sent / 1e6:.2f} MB",
            f"{sent / wanted:.3f}",
        )
    Console().print(
        f"{PROCESSES} processes, {TASKS} tasks a meta-step, bytes that one process sends in a meta-step:"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
