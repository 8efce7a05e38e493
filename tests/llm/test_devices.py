"""Devices, dtypes and attention back ends: asked for by name, refused or replaced aloud."""

import logging

import pytest
import torch

from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.llm import devices
from innerloop.llm.devices import attention_backends, check_dtype, parse_dtype, pick_attention
from innerloop.llm.devices import supported_dtypes as supported

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.usefixtures("no_accelerator")
def test_an_absent_device_falls_back_aloud(caplog: pytest.LogCaptureFixture) -> None:
    assert pick_device("auto") == pick_device("cpu") == CPU
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert pick_device("cuda") == CPU
    assert "device 'cuda' is not on this machine; using 'cpu'" in caplog.text


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_an_absent_device_is_an_error_when_strict(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}' is not on this machine"):
        pick_device(name, strict=True)


@pytest.mark.usefixtures("two_gpus")
def test_a_present_device_is_taken() -> None:
    assert pick_device("auto") == CUDA
    assert pick_device("cuda:1", strict=True) == torch.device("cuda:1")
    with pytest.raises(InputError, match="cuda:2"):
        pick_device("cuda:2", strict=True)


def test_the_best_device_is_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == MPS


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "", "CUDA"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}' is not known"):
        pick_device(name)


def test_dtypes() -> None:
    assert parse_dtype("auto") is None
    assert parse_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(InputError, match="dtype 'bf16' is not known; choose auto, float32"):
        parse_dtype("bf16")
    assert supported(CPU) == ("float32", "bfloat16", "float16", "float64")
    assert "float64" not in supported(MPS)
    with pytest.raises(InputError, match="float64 is not supported on 'mps'"):
        check_dtype(torch.float64, MPS)
    with pytest.raises(InputError, match="int8 is not supported on 'cpu'"):
        check_dtype(torch.int8, CPU)


def test_an_old_gpu_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(InputError, match=r"set model\.dtype to one of float32, float16, float64"):
        check_dtype(torch.bfloat16, CUDA)


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "reason"),
    [
        (CPU, torch.bfloat16, True, "it does not run on 'cpu'"),
        (CUDA, torch.float32, True, "it does not compute in float32"),
        (CUDA, torch.bfloat16, False, "it is not installed"),
        (CUDA, torch.bfloat16, True, None),
    ],
)
def test_flash_attention_needs_a_gpu_and_half_precision(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: torch.device,
    dtype: torch.dtype,
    installed: bool,
    reason: str | None,
) -> None:
    monkeypatch.setattr(devices, "is_flash_attn_2_available", lambda: installed)
    with caplog.at_level(logging.WARNING):
        chosen = pick_attention("flash_attention_2", device, dtype)
    assert chosen == ("sdpa" if reason else "flash_attention_2")
    assert (reason in caplog.text) if reason else not caplog.records
    assert ("flash_attention_2" in attention_backends(device)) == (device == CUDA and installed)


def test_attention_names() -> None:
    assert pick_attention("auto", CPU, torch.float32) is None
    assert pick_attention("eager", CPU, torch.float32) == "eager"
    with pytest.raises(InputError, match="attn_implementation 'flash' is not known"):
        pick_attention("flash", CPU, torch.float32)
