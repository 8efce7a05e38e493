"""What stops a run: numbers that are not finite, files that cannot be written (signals: test_signals.py)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.toy import (
    RegressionSource,
    Setup,
    assert_same_state,
    inner_loop,
    rows,
    sources,
)
from innerloop.core import params as vector
from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError, NonFiniteError
from innerloop.core.inner import SGD
from innerloop.core.learner import FunctionalLearner
from innerloop.core.metagrad import FirstOrder
from innerloop.core.sampler import EpisodeSampler
from innerloop.core.task import FixedTask
from innerloop.core.tracking import JsonlTracker
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings

# Numbers that are not finite


Objective = Callable[[nn.Module, Tensor], Tensor]


def failing(folder: Path, objective: Objective, fine: Tensor, sick: Tensor) -> MetaTrainer:
    """A run of two tasks that differ in their query batches."""

    class Source(RegressionSource):
        def draw(self) -> FixedTask:
            return FixedTask(self.name, [torch.ones(1)], fine if self.name == "fine" else sick)

    module = nn.Linear(2, 1, bias=False)
    nn.init.ones_(module.weight)
    return MetaTrainer(
        FunctionalLearner(module, objective),
        FirstOrder(inner_loop(module, SGD(), rate=0.0)),
        EpisodeSampler([Source("fine", 0.0), Source("sick", 0.0)], 2, seed=0),
        OuterSettings(0.1, 3, "sgd"),
        RunSettings(folder),
        lambda step: JsonlTracker(folder, step),
    )


@pytest.mark.parametrize(
    ("objective", "what", "task"),
    [
        (lambda m, batch: m.weight.sum() / batch.sum(), "query loss before adaptation", "sick"),
        # The root's slope is infinite at 0, where its value is finite.
        (lambda m, batch: (m.weight.sum() - 2 + batch.sum()).abs().sqrt(), "meta-gradient", "sick"),
    ],
    ids=["loss", "gradient"],
)
def test_the_sick_task_is_named(tmp_path: Path, objective: Objective, what: str, task: str) -> None:
    trainer = failing(tmp_path, objective, torch.ones(1), torch.zeros(1))
    with pytest.raises(NonFiniteError, match=f"^{what} of task '{task}' is not finite at step 1; ") as caught:
        trainer.fit()
    assert (caught.value.what, caught.value.task, caught.value.step) == (what, task, 1)
    assert "step 0 is saved in" in str(caught.value)
    assert RunState.read(tmp_path / "latest").tensors["theta/weight"].tolist() == [[1.0, 1.0]]
    assert vector.cloned(trainer.learner.theta)["weight"].tolist() == [[1.0, 1.0]]


def test_a_norm_that_overflows_is_refused(tmp_path: Path) -> None:
    """Each gradient is finite, the square of their mean is not: a step would make θ NaN."""
    trainer = failing(tmp_path, lambda m, batch: m.weight.sum() * batch.sum(), *[torch.tensor(1e30)] * 2)
    with pytest.raises(NonFiniteError, match="norm of the meta-gradient") as caught:
        trainer.fit()
    assert set(caught.value.task.split(", ")) == {"fine", "sick"}
    assert RunState.read(tmp_path / "latest").tensors["theta/weight"].tolist() == [[1.0, 1.0]]


def test_a_failed_step_leaves_nothing_behind_in_the_run(tmp_path: Path) -> None:
    healthy = Setup(tmp_path / "healthy", run=RunSettings(tmp_path / "healthy", save_every=1)).trainer()
    healthy.fit()
    sick = Setup(tmp_path / "sick", tasks=lambda: sources("zero", bad_step=4)).trainer()
    with pytest.raises(NonFiniteError, match="task 'zero' is not finite at step 4"):
        sick.fit()
    assert_same_state(tmp_path / "sick" / "step_3", tmp_path / "healthy" / "step_3")
    assert [row["step"] for row in rows(tmp_path / "sick")] == [1, 2, 3]
    cured = Setup(tmp_path / "sick").trainer()
    cured.fit()
    assert_same_state(tmp_path / "sick" / "step_6", tmp_path / "healthy" / "step_6")
    assert rows(tmp_path / "sick") == rows(tmp_path / "healthy")


# Where files go wrong


def test_an_export_that_cannot_be_written_stops_in_one_line(tmp_path: Path) -> None:
    def export(checkpoint: Path) -> None:
        (checkpoint / "model").write_text("half of it")
        if trainer.step == 4:
            raise OSError(28, "No space left on device")

    setup = Setup(tmp_path, export=export, run=RunSettings(tmp_path, save_every=2))
    trainer = setup.trainer()
    with pytest.raises(InputError, match=r"step_4: No space left on device; free some space"):
        trainer.fit()
    assert {path.name for path in tmp_path.iterdir()} == {"step_2", "latest", "metrics.jsonl"}
    assert (tmp_path / "latest" / "model").exists()
    trainer = replace(setup, export=lambda _folder: None).trainer()
    trainer.fit()
    Setup(tmp_path / "straight").trainer().fit()
    assert_same_state(tmp_path / "latest", tmp_path / "straight" / "latest")


def test_a_folder_that_cannot_be_made_stops_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    trainer = Setup(tmp_path / "file" / "run").trainer()
    with pytest.raises(InputError, match="Not a directory") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    assert trainer.step == 0
