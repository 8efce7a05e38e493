"""The doctor: what it finds is true of this machine, and its tables print anywhere."""

import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import innerloop
from innerloop.llm import doctor, smollm
from innerloop.llm.doctor import DeviceReport, OptionalPart, diagnose, render


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "not" / "yet"))


def printed(diagnosis: doctor.Diagnosis, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(diagnosis))
    return stream.getvalue()


def test_it_finds_what_is_there(tmp_path: Path) -> None:
    diagnosis = diagnose()
    assert diagnosis.versions["innerloop"] == innerloop.__version__
    assert diagnosis.versions["torch"] == torch.__version__
    cpu = diagnosis.devices[0]
    assert cpu.name == "cpu"
    assert "float32" in cpu.dtypes
    assert {"eager", "sdpa"} <= set(cpu.attention)
    assert 0 < cpu.memory_free <= cpu.memory_total
    assert diagnosis.distributed["gloo"] == torch.distributed.is_gloo_available()
    assert diagnosis.distributed["FSDP2"] == torch.distributed.is_available()
    cache = diagnosis.disks[1]
    assert cache.folder == str(tmp_path / "not" / "yet")
    assert cache.writable
    assert 0 < cache.free <= cache.total
    assert not Path(cache.folder).exists()


@pytest.mark.parametrize(
    ("gpus", "nccl", "gloo", "said"),
    [
        (8, True, True, "torchrun --nproc_per_node 8: each with a GPU of its own"),
        (1, True, True, "trainer.device=cpu"),
        (8, False, True, "trainer.device=cpu"),
        (0, False, False, "none: this PyTorch was built without them"),
    ],
)
def test_it_says_how_several_processes_can_train(
    monkeypatch: pytest.MonkeyPatch, gpus: int, nccl: bool, gloo: bool, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: gloo)
    assert said in doctor._processes()


def test_every_extra_of_the_package_is_listed() -> None:
    parts = diagnose().optional
    assert {part.extra for part in parts} >= {"smollm", "wandb", "tensorboard", "reasoning-gym"}
    assert not {part.extra for part in parts} & {"dev", "docs", "all"}
    gguf = next(part for part in parts if part.library == "gguf")
    assert gguf.install == "pip install 'innerloop[smollm]'"


@pytest.mark.parametrize(
    ("installed", "satisfied"), [(None, False), ("0.0.1", False), ("999.0", True), ("999.0rc1", True)]
)
def test_a_missing_or_old_part_is_not_satisfied(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, satisfied: bool
) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: installed)
    parts = diagnose().optional
    assert parts
    assert {(part.version, part.satisfied) for part in parts} == {(installed, satisfied)}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tables_name_the_command_that_mends(width: int) -> None:
    missing = OptionalPart("wandb", "wandb", None, False, "pip install 'innerloop[wandb]'")
    text = printed(replace(diagnose(), optional=(missing,)), width)
    assert "pip install 'innerloop[wandb]'" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= width
    assert "flash_attention_2" in text


def test_several_devices_are_shown() -> None:
    gpu = DeviceReport("cuda:0", "Some GPU", ("float32",), ("eager",), 10**9, 2 * 10**9)
    text = printed(replace(diagnose(), devices=(gpu,)))
    assert "cuda:0" in text
    assert "Some GPU" in text
    assert "1.0 GB of 2.0 GB" in text
    assert "bfloat16 (absent)" in text


def test_it_prints_where_only_ascii_does() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=stream, width=100).print(render(diagnose()))
    stream.flush()
    assert b"optional part" in raw.getvalue()


@pytest.mark.parametrize(
    ("cached", "installed", "says"),
    [
        (True, None, "is ready"),
        (False, Path("x"), "converted at first use"),
        (False, None, "innerloop models get"),
    ],
)
def test_the_embedded_model_is_reported(
    monkeypatch: pytest.MonkeyPatch, cached: bool, installed: Path | None, says: str
) -> None:
    monkeypatch.setattr(smollm, "is_cached", lambda: cached)
    monkeypatch.setattr(smollm, "installed_gguf", lambda: installed)
    assert says in diagnose().embedded_model


def test_it_is_json() -> None:
    assert json.loads(json.dumps(asdict(diagnose())))["devices"][0]["name"] == "cpu"


def test_a_read_only_folder_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind the tests' own root
    diagnosis = diagnose()
    assert not any(disk.writable for disk in diagnosis.disks)
    assert "no" in printed(diagnosis).split()
