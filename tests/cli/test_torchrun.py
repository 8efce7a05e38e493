"""The command line under torchrun: what runs there, what refuses, and how a signal ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from end_to_end.workbench import Workbench, write_tasks
from innerloop.cli.main import main
from innerloop.core.checkpoint import RunState
from innerloop.core.tracking import read_metrics

PATIENCE = 300.0  # seconds, on a busy machine


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path) -> Workbench:
    return Workbench(tiny_model, write_tasks(tmp_path / "data"), tmp_path)


def test_a_signal_to_torchrun_saves_and_stops_and_one_process_goes_on(
    bench: Workbench, capfd: pytest.CaptureFixture[str]
) -> None:
    words = bench.settings(
        "run", "trainer.total_steps=100000", "trainer.save_freq=-1", "trainer.test_freq=-1"
    )
    metrics = bench.root / "run" / "metrics.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "innerloop", "train", "--config-name", "meta_lora", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while not (metrics.exists() and len(read_metrics(metrics)) >= 2):
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=PATIENCE)
    lines = [line for line in said.splitlines() if line.startswith("innerloop: interrupted")]
    assert len(lines) == 1, said  # by the main process, for both
    saved = RunState.read_values(bench.root / "run" / "latest")
    assert f"step {saved['step']} is saved" in lines[0]
    assert saved["step"] == len(read_metrics(metrics)) >= 2

    steps = saved["step"] + 1
    for name in ("run", "whole"):
        bench.train("meta_lora", name, f"trainer.total_steps={steps}", "trainer.test_freq=-1")
    gone_on, whole = (RunState.read(bench.root / name / "latest") for name in ("run", "whole"))
    assert gone_on.values["ledger"] == whole.values["ledger"]
    for key, tensor in whole.section("theta").items():
        torch.testing.assert_close(gone_on.section("theta")[key], tensor, rtol=1e-3, atol=1e-5, msg=key)
    capfd.readouterr()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_command_for_one_process_is_refused_under_torchrun_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    assert main(["report", "nothing"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == (rank == 0)
    assert ("runs in one process; start it without torchrun" in said) == (rank == 0)
