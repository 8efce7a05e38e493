"""The line between worker and process: beats keep the process alive, silence or a cut line ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from innerloop.service.work.lifeline import BEAT, LOST

SILENCE = 1.0

HEEDING = """
import sys, time
from innerloop.core.errors import Interrupted
from innerloop.core.signals import StopRequest
from innerloop.service.work import lifeline
lifeline.hold({silence})
with StopRequest() as stop:
    print("ready", flush=True)
    try:
        while True:
            time.sleep(0.01)
            stop.check()
    except Interrupted:
        time.sleep(0.3)
        print("saved", flush=True)
        sys.exit(130)
"""

DEAF = """
import signal, time
from innerloop.service.work import lifeline
lifeline.GRACE = 0.5
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lifeline.hold({silence})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    code = request.param.format(silence=SILENCE)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def beat(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.write(BEAT)


@pytest.mark.parametrize("program", [HEEDING], indirect=True)
def test_beats_keep_it_alive_and_silence_lets_it_save_and_stop(program: "subprocess.Popen[bytes]") -> None:
    for _ in range(15):
        time.sleep(SILENCE / 5)
        beat(program)
    assert program.poll() is None
    silent = time.monotonic()
    assert program.wait(60) == 130
    assert time.monotonic() - silent > SILENCE
    assert program.stdout is not None
    assert program.stdout.read() == b"saved\n"


@pytest.mark.parametrize("program", [HEEDING], indirect=True)
def test_a_cut_line_ends_it_at_once(program: "subprocess.Popen[bytes]") -> None:
    beat(program)
    assert program.stdin is not None
    program.stdin.close()
    assert program.wait(60) == 130


@pytest.mark.parametrize("program", [DEAF], indirect=True)
def test_one_that_does_not_heed_has_some_grace_and_then_ends(program: "subprocess.Popen[bytes]") -> None:
    assert program.stdin is not None
    cut = time.monotonic()
    program.stdin.close()
    assert program.wait(60) == LOST
    assert time.monotonic() - cut > 0.5


def test_a_worker_that_is_killed_cuts_the_line() -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {HEEDING.format(silence=60)!r}], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, bufsize=0)
    assert worker.stdout is not None
    said = {worker.stdout.readline(), worker.stdout.readline()}
    child = next(int(line) for line in said if line.strip().isdigit())
    assert b"ready\n" in said
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    # The end of the output that both wrote to is the end of both.
    assert worker.stdout.read() == b"saved\n"
    assert child > 0
