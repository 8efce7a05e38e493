"""The console sink: plain lines in a log, a live bar on a terminal."""

import io
from collections.abc import Iterator
from itertools import count

import pytest
from rich.console import Console

from innerloop.tracking.console import ConsoleTracker

METRICS = {"meta/loss": 1.25, "meta/avg_adaptation_gap": 0.5, "perf/seconds": 2.0, "algebra/query_loss": 9.0}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def log_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False
    )


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_gets_the_first_the_last_and_a_line_every_few_seconds() -> None:
    console, clock = log_console(), Clock()
    tracker = ConsoleTracker("run", total_steps=10, console=console, clock=clock)
    for step in range(1, 11):
        clock.now += 2.0
        tracker.log(step, METRICS)
    tracker.close()
    lines = text_of(console).splitlines()
    assert [line.split()[2] for line in lines] == ["1/10", "4/10", "7/10", "10/10"]
    assert lines[1] == "run step 4/10  loss 1.25  gap 0.5  s/step 2  0:00:12 left"


def test_the_time_left_counts_from_the_step_the_run_starts_after() -> None:
    console, clock = log_console(), Clock()
    tracker = ConsoleTracker("run", total_steps=10, start_step=8, console=console, clock=clock)
    clock.now = 60.0
    tracker.log(9, METRICS)
    assert text_of(console).endswith("0:01:00 left\n")


def test_an_interrupted_run_still_shows_its_last_step() -> None:
    console = log_console()
    tracker = ConsoleTracker("run", total_steps=10, console=console, clock=Clock())
    tracker.log(1, METRICS)
    tracker.log(2, METRICS)
    tracker.close()
    tracker.close()
    assert [line.split()[2] for line in text_of(console).splitlines()] == ["1/10", "2/10"]


def test_an_evaluation_is_always_shown() -> None:
    console = log_console()
    tracker = ConsoleTracker("run", total_steps=10, console=console, clock=Clock())
    tracker.log(1, METRICS)
    tracker.log(2, {**METRICS, "eval/loss": 0.75, "eval/avg_adaptation_gap": 0.125})
    assert text_of(console).splitlines()[-1] == "run step 2: held-out tasks  loss 0.75  gap 0.125"


def test_supervised_training_shows_its_own_loss_and_odd_figures_as_they_are() -> None:
    console = log_console()
    ConsoleTracker("run", total_steps=1, console=console, clock=Clock()).log(1, {"train/loss": float("nan")})
    assert "loss nan" in text_of(console)


def test_a_long_name_with_brackets_is_neither_markup_nor_folded() -> None:
    console = log_console()
    name = "[bold]" + "x" * 100
    ConsoleTracker(name, total_steps=1, console=console, clock=Clock()).log(1, METRICS)
    assert text_of(console).startswith(f"{name} step 1/1")
    assert len(text_of(console).splitlines()) == 1


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_gets_a_bar_with_loss_and_gap(width: int) -> None:
    console = terminal(width)
    tracker = ConsoleTracker("meta_lora", total_steps=40, start_step=10, console=console)
    tracker.log(11, METRICS)
    tracker.log(12, {**METRICS, "eval/loss": 0.75})
    tracker.close()
    shown = text_of(console)
    assert "12/40 loss 1.25  gap 0.5" in shown
    assert "meta_lora step 12: held-out tasks  loss 0.75" in shown
    assert "step 11/40" not in shown


def test_it_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ticks: Iterator[int] = count()
    ConsoleTracker("run", total_steps=1, clock=lambda: float(next(ticks))).log(1, METRICS)
    written = capsys.readouterr()
    assert written.out == ""
    assert "run step 1/1" in written.err
