"""The list of models on this machine, and getting the embedded one."""

import io
from pathlib import Path

import huggingface_hub
import pytest
from rich.console import Console

from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.model_list import ModelEntry, get_model, list_models, model_table


@pytest.fixture(autouse=True)
def own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm, "installed_gguf", lambda: None)
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path / "hub"))


def test_a_bare_machine_lists_the_embedded_model_and_how_to_get_it() -> None:
    (entry,) = list_models()
    assert (entry.name, entry.state) == ("smollm2-135m", "not here; innerloop models get smollm2-135m")
    assert (entry.size, entry.folder) == (None, None)


def test_an_installed_wheel_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm, "installed_gguf", lambda: Path("x.gguf"))
    assert list_models()[0].state == "installed, converted at first use"


def test_everything_cached_is_listed(tmp_path: Path) -> None:
    conversions = tmp_path / "cache" / "gguf-v1"
    for name in ("smollm2-135m", "qwen-0123456789ab", ".half.partial"):
        (conversions / name).mkdir(parents=True)
        (conversions / name / "model.safetensors").write_bytes(bytes(1500))
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "hub" / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)

    embedded, converted, hub = list_models()
    assert (embedded.state, embedded.size) == ("ready", 1500)
    assert converted.name == str(conversions / "qwen-0123456789ab")
    assert (hub.name, hub.kind) == ("org/name", "hub")


def test_the_table_shows_names_with_brackets_whole() -> None:
    stream = io.StringIO()
    entry = ModelEntry("odd[name]", "hub", "ready", 2_000_000, Path("/a[b]/c"))
    Console(file=stream, width=100).print(model_table([entry]))
    assert "odd[name]" in stream.getvalue()
    assert "/a[b]/c" in stream.getvalue()
    assert "2.0 MB" in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2", r"did you mean 'smollm2-135m'\?"),
        ("SmolLM2-135M", r"did you mean 'smollm2-135m'\?"),
        ("org/other", "'org/other' is no embedded model; choose smollm2-135m"),
    ],
)
def test_an_unknown_embedded_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_model(name)


def test_getting_returns_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(smollm, "get", lambda: tmp_path)
    assert get_model("smollm2-135m") == tmp_path
