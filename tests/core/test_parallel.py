"""Several processes train as one does: the same parameters, the same figures, the same end.

The two processes here share three tasks, so that one has more to do than the other.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from core.test_strategies_matrix import Combination
from core.toy import RegressionSource, Setup, inner_loop, loss, rows, sources, whole_state
from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.inner import SGD
from innerloop.core.learner import FunctionalLearner
from innerloop.core.metagrad import FirstOrder
from innerloop.core.parallel import Turn, World
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask
from innerloop.core.trainer import OuterSettings, RunSettings
from processes import Processes, alone

TOGETHER = [
    Combination("exact-reverse", "functional", "adam-carry", learned=True),
    Combination("exact-forward", "vmap-2", "sgd-clipped", learned=True),
    Combination("exact-central", "in-place", "sgd", learned=False),
    Combination("unroll", "functional", "sgd-clipped", learned=True),
    Combination("first-order", "vmap-2", "adam-carry", learned=True),
    Combination("implicit", "functional", "adam-carry", learned=False),
    Combination("reptile", "in-place", "adam-reset", learned=False),
    Combination("joint", "vmap-2", "sgd", learned=False),
]


def agree(left: Path, right: Path, tolerance: float = 1e-4) -> None:
    """Two checkpoints hold the same run within float tolerance, and exactly the same counts and places."""
    (tensors, values), (others, other_values) = whole_state(left), whole_state(right)
    assert values == other_values
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def figures_agree(left: Path, right: Path, tolerance: float = 1e-4) -> None:
    for row, other in zip(rows(left), rows(right), strict=True):
        assert other == pytest.approx(row, rel=10 * tolerance, abs=tolerance)


# One process and two


def train(world: World, combination: Combination, folder: Path) -> None:
    combination.setup(folder, world=world).trainer().fit()


@pytest.mark.parametrize("combination", TOGETHER, ids=str)
def test_two_processes_train_as_one(
    combination: Combination, two_processes: Processes, tmp_path: Path
) -> None:
    alone(train, combination, tmp_path / "one")
    two_processes.run(train, combination, tmp_path / "two")
    # A central difference divides the rounding of float32 by its width.
    tolerance = 1e-2 if combination.strategy == "exact-central" else 1e-4
    agree(tmp_path / "one" / "latest", tmp_path / "two" / "latest", tolerance)
    figures_agree(tmp_path / "one", tmp_path / "two", tolerance)


class Dropping(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(inputs, 0.3))


def train_with_dropout(world: World, folder: Path) -> None:
    def dropping(module: nn.Module, _hvp: object) -> FunctionalLearner:
        line = Dropping(2, 1)
        line.load_state_dict(module.state_dict())
        return FunctionalLearner(line, loss)

    Setup(folder, learner=dropping, world=world).trainer().fit()


def test_a_task_meets_the_same_chance_whichever_process_adapts_to_it(
    two_processes: Processes, tmp_path: Path
) -> None:
    alone(train_with_dropout, tmp_path / "one")
    two_processes.run(train_with_dropout, tmp_path / "two")
    agree(tmp_path / "one" / "latest", tmp_path / "two" / "latest")


def reduced(world: World, folder: Path, steps: int) -> list[int]:
    """The sizes of the tensors that one meta-step sums over processes."""
    sizes: list[int] = []
    original = dist.all_reduce

    def counting(tensor: Tensor, *arguments: Any, **settings: Any) -> Any:
        if tensor.is_floating_point():
            sizes.append(tensor.numel())
        return original(tensor, *arguments, **settings)

    def strategy(module: nn.Module) -> FirstOrder:
        return FirstOrder(replace(inner_loop(module, SGD()), steps=steps))

    dist.all_reduce = counting
    try:
        setup = Setup(
            folder,
            strategy,
            tasks=lambda: sources(steps=steps),
            outer=OuterSettings(0.1, 1),
            world=world,
        )
        setup.trainer().fit()
    finally:
        dist.all_reduce = original
    return sizes


def test_the_meta_gradient_is_summed_once_a_step_and_inner_gradients_never(
    two_processes: Processes, tmp_path: Path
) -> None:
    for steps in (1, 5):
        for sizes in two_processes.run(reduced, tmp_path / f"{steps}", steps):
            assert sizes == [3]  # two weights and a bias, in one message


# Who does what


def test_every_task_is_somebodys_and_nobody_has_two_more_than_another() -> None:
    for size in range(1, 6):
        for tasks in range(size, 12):
            shares = [World(rank, size).turns(tasks) for rank in range(size)]
            assert sorted(turn.index for share in shares for turn in share) == list(range(tasks))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_where_all_must_walk_in_step_all_take_as_many_turns_and_each_task_counts_once() -> None:
    for tasks in range(2, 9):
        shares = [World(rank, 4, group_size=2, in_step=True).turns(tasks) for rank in range(4)]
        assert len({len(share) for share in shares}) == 1
        assert shares[0] == shares[1]
        assert shares[2] == shares[3]
        counted = [turn.index for share in shares[::2] for turn in share if turn.counts]
        assert sorted(counted) == list(range(tasks))
    assert World(3, 4, in_step=True).turns(5) == [Turn(3), Turn(4, counts=False)]


def count_writers(world: World, folder: Path) -> int:
    exported = 0

    def export(_folder: Path) -> None:
        nonlocal exported
        exported += 1

    Setup(folder, run=RunSettings(folder, save_every=2), export=export, world=world).trainer().fit()
    return exported


def test_all_take_part_in_saving_and_the_main_process_writes(
    two_processes: Processes, tmp_path: Path
) -> None:
    assert two_processes.run(count_writers, tmp_path) == [3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest",
        "metrics.jsonl",
        "step_2",
        "step_4",
        "step_6",
    ]
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


# How it ends


def message_of(processes: Processes, kind: type[Exception], *order: Any) -> str:
    """The one error that both processes end with."""
    first, second = processes.outcomes(*order)
    assert type(first.error) is type(second.error) is kind, f"{first.trace}\n{second.trace}"
    assert str(first.error) == str(second.error)
    assert not first.error.told_by_main  # type: ignore[attr-defined]
    assert second.error.told_by_main  # type: ignore[attr-defined]
    return str(first.error)


def train_spoiled(world: World, folder: Path, bad_task: str) -> None:
    run = RunSettings(folder, save_every=0)
    Setup(folder, tasks=lambda: sources(bad_task, bad_step=3), run=run, world=world).trainer().fit()


@pytest.mark.parametrize("bad_task", ["low", "zero", "high"])  # two of them are the second process's
def test_a_loss_that_is_not_finite_on_one_process_ends_all_with_the_last_step_saved(
    two_processes: Processes, tmp_path: Path, bad_task: str
) -> None:
    said = message_of(two_processes, NonFiniteError, train_spoiled, tmp_path / "two", bad_task)
    assert f"'{bad_task}' is not finite at step 3" in said
    assert f"step 2 is saved in {tmp_path / 'two' / 'step_2'}" in said
    with pytest.raises(NonFiniteError):
        alone(train_spoiled, tmp_path / "one", bad_task)
    agree(tmp_path / "one" / "step_2", tmp_path / "two" / "step_2")


@dataclass(frozen=True)
class SignallingTask(FixedTask):
    """A task during which this process, and no other, is told to stop."""

    def support(self, step: int, params: Params) -> Batch:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().support(step, params)


class SignallingSource(RegressionSource):
    def draw(self) -> FixedTask:
        task = super().draw()
        if self.position == 3:
            return SignallingTask(task.name, task.support_batches, task.query_batch)
        return task


def train_signalled(world: World, folder: Path, who: int) -> None:
    def tasks() -> list[RegressionSource]:
        kinds = [SignallingSource if world.rank == who else RegressionSource] * 3
        return [kind(each.name, each.offset) for kind, each in zip(kinds, sources(), strict=True)]

    Setup(folder, tasks=tasks, world=world).trainer().fit()


@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    two_processes: Processes, tmp_path: Path, who: int
) -> None:
    said = message_of(two_processes, Interrupted, train_signalled, tmp_path / "cut", who)
    assert "SIGTERM received; step" in said
    alone(train_plainly, tmp_path / "whole")
    two_processes.run(train_plainly, tmp_path / "cut")
    agree(tmp_path / "whole" / "latest", tmp_path / "cut" / "latest")
    figures_agree(tmp_path / "whole", tmp_path / "cut")


def train_plainly(world: World, folder: Path, steps: int = 6) -> None:
    """Trains from wherever the folder's last checkpoint is."""
    Setup(folder, outer=OuterSettings(0.4, steps, "adam"), world=world).trainer().fit()


def test_a_run_goes_on_on_another_number_of_processes(two_processes: Processes, tmp_path: Path) -> None:
    alone(train_plainly, tmp_path / "whole")
    two_processes.run(train_plainly, tmp_path / "parts", 2)
    alone(train_plainly, tmp_path / "parts", 4)
    two_processes.run(train_plainly, tmp_path / "parts", 6)
    agree(tmp_path / "whole" / "latest", tmp_path / "parts" / "latest")
    figures_agree(tmp_path / "whole", tmp_path / "parts")


def train_unequal(world: World, folder: Path) -> None:
    trainer = Setup(folder, world=world).trainer()
    torch.manual_seed(world.rank)
    trainer.fit()


def test_processes_that_do_not_train_on_the_same_refuse(two_processes: Processes, tmp_path: Path) -> None:
    first, second = two_processes.outcomes(train_unequal, tmp_path)
    for outcome in (first, second):
        assert isinstance(outcome.error, InputError), outcome.trace
        assert "start all of them with the same settings" in str(outcome.error)


def train_few(world: World, folder: Path) -> None:
    Setup(folder, tasks=lambda: sources()[:1], meta_batch_size=1, world=world).trainer().fit()


def test_a_process_without_a_task_is_refused(two_processes: Processes, tmp_path: Path) -> None:
    said = message_of(two_processes, InputError, train_few, tmp_path)
    assert (
        said
        == "a meta-step of 1 task cannot keep 2 processes busy; start fewer, or raise meta.meta_batch_size"
    )


def train_on_full_disk(world: World, folder: Path, who: int) -> None:
    def export(checkpoint: Path) -> None:
        if world.rank == who:
            raise OSError(28, "No space left on device")

    Setup(folder, export=export, world=world).trainer().fit()


@pytest.mark.parametrize("who", [0, 1])
def test_a_checkpoint_that_one_process_cannot_write_is_given_up_by_all(
    two_processes: Processes, tmp_path: Path, who: int
) -> None:
    said = message_of(two_processes, InputError, train_on_full_disk, tmp_path, who)
    assert "cannot write the checkpoint" in said
    assert "No space left on device" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


# Arithmetic


def summed(world: World, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    mine = {name: (world.rank + 1) * tensor for name, tensor in tensors.items()}
    world.sum_over_groups(list(mine.values()))
    return mine


def test_sums_go_in_messages_of_bounded_size_and_end_where_they_belong(
    two_processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {
        "small": torch.ones(3),
        "large": torch.arange(1 << 20, dtype=torch.float32).view(1024, 1024),
        "turned": torch.arange(6.0).view(2, 3).T,
        "double": torch.ones(2, dtype=torch.float64),
        "number": torch.tensor(2.0),
    }
    for result in two_processes.run(summed, tensors):
        for name, tensor in tensors.items():
            assert torch.equal(result[name], 3 * tensor), name
