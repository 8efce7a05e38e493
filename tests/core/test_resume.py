"""Going on from a checkpoint: from where, with what, and what is refused."""

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
    loss,
    rows,
    sources,
)
from innerloop.core.errors import InputError, NonFiniteError
from innerloop.core.inner import SGD
from innerloop.core.learner import FunctionalLearner
from innerloop.core.metagrad import FirstOrder, Strategy
from innerloop.core.task import FixedTask
from innerloop.core.trainer import OuterSettings, Resume, RunSettings

SCHEDULED = OuterSettings(
    0.3, 6, "adamw", weight_decay=0.1, clip_norm=0.5, schedule="linear", warmup_ratio=0.3
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of six steps, every one saved."""
    folder = tmp_path_factory.mktemp("straight")
    Setup(folder, outer=SCHEDULED, run=RunSettings(folder, save_every=1)).trainer().fit()
    return folder


class PowerCut(BaseException):
    """Ends a run without giving it a chance."""


class CutOff(RegressionSource):
    """The power fails while step 5 draws its tasks."""

    def draw(self) -> FixedTask:
        if self.position == 4:
            raise PowerCut
        return super().draw()


def cut_off() -> list[RegressionSource]:
    return [CutOff(source.name, source.offset) for source in sources()]


def test_a_run_cut_off_between_checkpoints_repeats_what_was_lost(tmp_path: Path, straight: Path) -> None:
    setup = Setup(tmp_path, outer=SCHEDULED, run=RunSettings(tmp_path, save_every=3))
    with pytest.raises(PowerCut):
        replace(setup, tasks=cut_off).trainer().fit()
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]  # step 4 is known of, but not saved
    assert setup.trainer().fit() == tmp_path / "step_6"
    assert_same_state(tmp_path / "step_6", straight / "step_6")
    assert rows(tmp_path) == rows(straight)


@pytest.mark.parametrize("step", range(1, 6))
def test_a_run_goes_on_from_a_named_path(tmp_path: Path, straight: Path, step: int) -> None:
    run = RunSettings(tmp_path, save_every=0, resume=straight / f"step_{step}")
    trainer = Setup(tmp_path, outer=SCHEDULED, run=run).trainer()
    assert trainer.fit() == tmp_path / "step_6"
    assert_same_state(tmp_path / "step_6", straight / "step_6")
    assert rows(tmp_path) == rows(straight)[step:]


def test_a_run_goes_on_from_latest(tmp_path: Path, straight: Path) -> None:
    longer = replace(SCHEDULED, total_steps=7)
    run = RunSettings(tmp_path, resume=straight / "latest")
    assert Setup(tmp_path, outer=longer, run=run).trainer().fit() == tmp_path / "step_7"


def test_a_finished_run_is_left_as_it_is(straight: Path) -> None:
    def everything() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in straight.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if "step_" in str(path)}

    before, reported = everything(), rows(straight)
    setup = Setup(straight, outer=SCHEDULED, run=RunSettings(straight, save_every=1))
    assert setup.trainer().fit() == straight / "step_6"
    assert everything() == before
    assert rows(straight) == reported


def test_going_back_in_the_same_folder_gives_the_new_run(tmp_path: Path, straight: Path) -> None:
    """Later checkpoints of the old run must neither be taken for the new run's nor be resumed from."""
    folder = tmp_path / "run"
    Setup(folder, outer=SCHEDULED, run=RunSettings(folder, save_every=1)).trainer().fit()
    other = replace(SCHEDULED, learning_rate=0.01)
    back = RunSettings(folder, save_every=2, resume=folder / "step_3")

    with pytest.raises(PowerCut):
        Setup(folder, outer=other, run=replace(back, save_every=1), tasks=cut_off).trainer().fit()
    assert (folder / "latest").resolve() == folder / "step_4"
    resumed = Setup(folder, outer=other, run=RunSettings(folder, save_every=0)).trainer()
    assert resumed.fit() == folder / "step_6"

    elsewhere = tmp_path / "elsewhere"
    Setup(
        elsewhere, outer=other, run=replace(back, folder=elsewhere, resume=straight / "step_3")
    ).trainer().fit()
    assert_same_state(folder / "step_6", elsewhere / "step_6")
    with pytest.raises(AssertionError):
        assert_same_state(folder / "step_6", straight / "step_6")
    assert (folder / "latest").resolve() == folder / "step_6"


def test_disable_refuses_a_used_folder_and_takes_a_fresh_one(tmp_path: Path, straight: Path) -> None:
    reported = rows(straight)
    setup = Setup(straight, outer=SCHEDULED, run=RunSettings(straight, resume="disable"))
    with pytest.raises(InputError, match="already holds step_6 of another run; choose another") as caught:
        setup.trainer().fit()
    assert "\n" not in str(caught.value)
    assert rows(straight) == reported
    fresh = Setup(tmp_path, outer=SCHEDULED, run=RunSettings(tmp_path, resume="disable")).trainer()
    assert_same_state(fresh.fit(), straight / "step_6")


def noisy_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss that draws random numbers, as dropout does."""
    return loss(module, (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]))


def noisy(folder: Path, resume: Resume = "auto", bad_step: int | None = None) -> Setup:
    return Setup(
        folder,
        learner=lambda module, _hvp: FunctionalLearner(module, noisy_loss),
        tasks=lambda: sources() if bad_step is None else sources("zero", bad_step),
        run=RunSettings(folder, save_every=3, resume=resume),
    )


def test_the_random_state_is_part_of_the_run(tmp_path: Path) -> None:
    straight = noisy(tmp_path / "straight").trainer().fit()
    trainer = noisy(tmp_path / "resumed", resume=tmp_path / "straight" / "step_3").trainer()
    torch.manual_seed(999)
    assert_same_state(trainer.fit(), straight)


def test_a_step_that_is_given_up_takes_back_its_random_numbers(tmp_path: Path) -> None:
    straight = noisy(tmp_path / "straight").trainer().fit()
    with pytest.raises(NonFiniteError):
        noisy(tmp_path / "sick", bad_step=5).trainer().fit()
    cured = noisy(tmp_path / "sick").trainer()
    torch.manual_seed(999)
    assert_same_state(cured.fit(), straight)


# What is refused


def learned_rates(module: nn.Module) -> Strategy:
    return FirstOrder(inner_loop(module, SGD(), learned=True))


def wider(_module: nn.Module, _hvp: object) -> FunctionalLearner:
    return FunctionalLearner(nn.Linear(3, 1), loss)


def frozen_bias(module: nn.Module, _hvp: object) -> FunctionalLearner:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name != "bias")
    return FunctionalLearner(module, loss)


CHANGES: dict[str, tuple[Callable[[Setup], Setup], str]] = {
    "another shape": (lambda s: replace(s, learner=wider), "other adapted parameters"),
    "fewer parameters": (lambda s: replace(s, learner=frozen_bias), "other adapted parameters"),
    "learned rates": (lambda s: replace(s, strategy=learned_rates), "other adapted parameters"),
    "a task more": (
        lambda s: replace(s, tasks=lambda: [*sources(), RegressionSource("more", 1.0)]),
        "trained on other tasks",
    ),
    "a task less": (lambda s: replace(s, tasks=lambda: sources()[:2]), "trained on other tasks"),
    "another task": (
        lambda s: replace(s, tasks=lambda: [*sources()[:2], RegressionSource("other", 1.0)]),
        "trained on other tasks",
    ),
    "another optimizer": (
        lambda s: replace(s, outer=replace(SCHEDULED, optimizer="sgd")),
        "trained with adamw, not with sgd",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, straight: Path, change: str) -> None:
    alter, message = CHANGES[change]
    run = RunSettings(tmp_path, resume=straight / "step_3")
    setup = alter(Setup(tmp_path, outer=SCHEDULED, run=run))
    with pytest.raises(InputError, match=message) as caught:
        setup.trainer().fit()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_holds_no_checkpoint_is_refused(tmp_path: Path) -> None:
    run = RunSettings(tmp_path, resume=tmp_path / "step_3")
    with pytest.raises(InputError, match=r"cannot resume from .*step_3: trainer_state is missing"):
        Setup(tmp_path, run=run).trainer().fit()


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        pytest.param("state.json", lambda data: data[: len(data) // 2], id="half a file"),
        pytest.param("state.json", lambda _data: b"{}", id="nothing in it"),
        pytest.param("state.json", lambda data: data.replace(b"sampler", b"simpler"), id="no sampler"),
        pytest.param("state.json", lambda data: data.replace(b"gradient_passes", b"passes"), id="no count"),
        pytest.param("tensors.safetensors", lambda data: data[: len(data) // 2], id="half the tensors"),
        pytest.param("tensors.safetensors", lambda data: data.replace(b"m/cpu", b"m/gpu"), id="no random"),
        pytest.param("tensors.safetensors", lambda data: data.replace(b"weight", b"height"), id="no weight"),
    ],
)
def test_half_a_checkpoint_is_refused_and_kept(
    tmp_path: Path, path: str, damage: Callable[[bytes], bytes]
) -> None:
    setup = Setup(tmp_path, run=RunSettings(tmp_path, save_every=3))
    setup.trainer().fit()
    damaged = tmp_path / "step_6" / "trainer_state" / path
    damaged.write_bytes(damage(damaged.read_bytes()))
    with pytest.raises(InputError) as caught:
        setup.trainer().fit()
    assert str(tmp_path / "step_6") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"step_3", "step_6", "latest", "metrics.jsonl"}


# Parts of the state left out


def test_a_checkpoint_without_the_optimizer_must_be_resumed_without_it(tmp_path: Path) -> None:
    light = RunSettings(tmp_path, save_every=3, saved=frozenset({"extra"}))
    Setup(tmp_path, run=light).trainer().fit()
    on = replace(light, resume=tmp_path / "step_3")
    with pytest.raises(InputError, match="saved without optimizer; leave that out"):
        Setup(tmp_path, run=on).trainer().fit()
    trainer = Setup(tmp_path, run=replace(on, restored=frozenset({"extra"}))).trainer()
    trainer.fit()
    assert trainer.step == 6


def test_without_extra_only_the_parameters_are_taken_up(tmp_path: Path, straight: Path) -> None:
    run = RunSettings(tmp_path, resume=straight / "step_6", restored=frozenset())
    trainer = Setup(tmp_path, outer=OuterSettings(0.0, 1, "sgd"), run=run).trainer()
    trainer.fit()
    assert trainer.step == 1
    (row,) = rows(tmp_path)
    assert row["step"] == 1
    (first, *_) = rows(straight)
    assert row["meta/loss"] < first["meta/loss"]  # trained parameters, the first step's tasks
