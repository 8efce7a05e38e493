"""SIGTERM and SIGINT save and stop; a second SIGINT stops at once."""

import os
import signal
import threading
from pathlib import Path

import pytest

from core.checkpoints import names
from core.toy import assert_same_state, rows
from core.victim import started, train_to_a_barrier, watched
from innerloop.core.checkpoint import CheckpointFolder
from innerloop.core.errors import Interrupted
from innerloop.core.signals import StopRequest

TOTAL_STEPS = 6
BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_noted_and_raised_when_asked(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in BOTH]
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=f"{number.name} received"):
            stop.check()
    assert [signal.getsignal(each) for each in BOTH] == before


def test_a_second_sigint_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_sigterm_does_not() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_outside_the_main_thread_signals_are_left_to_others() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def signalled(folder: Path, barrier: str, *numbers: signal.Signals) -> str:
    """Sends the signals, one by one, to a run that has come to the barrier; returns how it ended."""
    with started(train_to_a_barrier, folder, TOTAL_STEPS, barrier) as (process, channel):
        assert channel.recv() == "here"
        assert process.pid is not None
        for number in numbers:
            os.kill(process.pid, number)
            channel.send("where are you")  # its answer shows that the signal was taken
            answer: str = channel.recv()
            if answer != "still here":
                return answer
        channel.send("go on")
        ending: str = channel.recv()
        process.join()
        assert process.exitcode == 0
        return ending


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    watched(folder, TOTAL_STEPS, lambda _where: None).trainer().fit()
    return folder


def assert_goes_on_to_the_same_end(folder: Path, straight: Path) -> None:
    assert not [name for name in names(folder) if name.startswith(".")]
    watched(folder, TOTAL_STEPS, lambda _where: None).trainer().fit()
    assert_same_state(folder / f"step_{TOTAL_STEPS}", straight / f"step_{TOTAL_STEPS}")
    assert rows(folder) == rows(straight)


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(
    ("barrier", "saved"),
    [("drawing 1", 0), ("drawing 4", 3), ("adapting 4", 3), ("writing 4", 4)],
    ids=["before anything", "with tasks drawn", "with a task adapted to", "while a checkpoint is written"],
)
def test_a_signal_saves_the_last_whole_step_and_stops(
    tmp_path: Path, straight: Path, number: signal.Signals, barrier: str, saved: int
) -> None:
    ending = signalled(tmp_path, barrier, number)
    assert ending == f"stopped: {number.name} received; step {saved} is saved in {tmp_path / f'step_{saved}'}"
    assert CheckpointFolder(tmp_path).latest() == tmp_path / f"step_{saved}"
    assert_goes_on_to_the_same_end(tmp_path, straight)


@pytest.mark.parametrize(("barrier", "saved"), [("adapting 4", 3), ("writing 4", 3)])
def test_a_run_told_twice_to_stop_does_not_save(
    tmp_path: Path, straight: Path, barrier: str, saved: int
) -> None:
    assert signalled(tmp_path, barrier, signal.SIGINT, signal.SIGINT) == "stopped at once"
    assert CheckpointFolder(tmp_path).latest() == tmp_path / f"step_{saved}"
    assert_goes_on_to_the_same_end(tmp_path, straight)


def test_a_signal_in_the_last_checkpoint_finds_the_run_finished(tmp_path: Path, straight: Path) -> None:
    assert signalled(tmp_path, f"writing {TOTAL_STEPS}", signal.SIGTERM) == "finished"
    assert_same_state(tmp_path / f"step_{TOTAL_STEPS}", straight / f"step_{TOTAL_STEPS}")
