"""From a model's name to its folder: every kind of name, and every way a folder can fall short."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.lora import LoraSpec, attach_lora
from innerloop.llm.sources import find_base, find_model
from tiny_gguf import gguf_llama, write_gguf
from tiny_llama import save_tiny_llama, tiny_llama


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model")


@pytest.fixture
def adapter(tmp_path: Path, model: Path) -> Path:
    attach_lora(tiny_llama(), LoraSpec(), str(model)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_plain_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    source = find_model("model")
    assert (source.name, source.folder, source.reference) == ("model", model, str(model))
    assert source.info is None
    assert not source.is_adapter


def test_an_adapter_and_its_base(adapter: Path, model: Path) -> None:
    source = find_model(str(adapter))
    assert source.is_adapter
    assert find_base(source).folder == model


def test_a_run_is_its_newest_whole_checkpoint(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("step_9", "step_10", ".step_11.writing"):
        shutil.copytree(model, run / name)
    assert find_model(str(run)).folder == run / "step_10"
    assert find_model(str(run / "step_9")).folder == run / "step_9"


def test_a_gguf_file_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tmp_path / "tiny.gguf", gguf_llama(), "smollm")
    source = find_model(str(file))
    assert source.name == str(file)
    assert source.folder.is_relative_to(tmp_path / "cache")
    assert source.reference == str(source.folder)


def test_a_sharded_model_needs_every_shard(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    find_model(str(tmp_path))
    shards[-1].unlink()
    with pytest.raises(InputError, match=f"half a model: {shards[-1].name} is missing"):
        find_model(str(tmp_path))


def test_an_alias_comes_before_a_recorded_folder(
    adapter: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_tiny_llama(model.parent / "other", seed=1)
    monkeypatch.setattr(smollm, "folder", lambda: other)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "smollm2-135m"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    base = find_base(find_model(str(adapter)))
    assert (base.name, base.folder) == ("smollm2-135m", other)


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:40])


def pickled(file: str, instead: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / file).unlink()
        torch.save({}, folder / instead)

    return replace


def configured(file: str, key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        settings = json.loads((folder / file).read_text())
        settings[key] = value
        (folder / file).write_text(json.dumps(settings))

    return change


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("model", remove("config.json"), "is no model: it holds neither config.json nor adapter_config.json"),
        ("model", remove("model.safetensors"), "half a model: model.safetensors is missing"),
        ("model", cut("config.json"), "config.json cannot be read as JSON"),
        ("model", lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (
            "model",
            pickled("model.safetensors", "pytorch_model.bin"),
            "only pickled weights, and pickled weights are never loaded",
        ),
        (
            "adapter",
            remove("adapter_model.safetensors"),
            "half an adapter: adapter_model.safetensors is missing",
        ),
        ("adapter", cut("adapter_config.json"), "adapter_config.json cannot be read as JSON"),
        (
            "adapter",
            pickled("adapter_model.safetensors", "adapter_model.bin"),
            "only pickled weights, and pickled weights are never loaded",
        ),
        (
            "adapter",
            configured("adapter_config.json", "peft_type", "IA3"),
            "is a PEFT adapter of type 'IA3'; only LoRA is supported",
        ),
        (
            "adapter",
            configured("adapter_config.json", "base_model_name_or_path", None),
            "names no base model",
        ),
        (
            "adapter",
            configured("adapter_config.json", "base_model_name_or_path", "/gone/model"),
            "base model of the adapter .* was not found: model '/gone/model': there is no such folder",
        ),
        (
            "adapter",
            lambda folder: configured("adapter_config.json", "base_model_name_or_path", str(folder))(folder),
            "which is an adapter itself",
        ),
    ],
)
def test_a_damaged_folder_is_one_clear_line(
    model: Path, adapter: Path, kind: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = {"model": model, "adapter": adapter}[kind]
    damage(folder)
    with pytest.raises(InputError, match=message):
        find_base(find_model(str(folder)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "there is no such folder or file"),
        ("~/nowhere-at-all", "there is no such folder or file"),
        ("nowhere.gguf", "there is no such folder or file"),
        ("a/b/c", "there is no such folder or file"),
        (" ", "the model has no name"),
        ("smollm2-135", r"did you mean 'smollm2-135m'\?"),
        ("org/unknown", "hub has no such model or cannot be reached .* 'innerloop models list' shows"),
    ],
)
def test_an_unknown_name_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_model(name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("weights.bin", "pickled weights are never loaded"),
        ("weights.pt", "pickled weights are never loaded"),
        ("model.safetensors", "is no model; name its folder"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        find_model(str(tmp_path / file))


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nor a step_N folder"):
        find_model(str(tmp_path))


def test_a_hub_model_is_read_from_its_snapshot_and_named_by_its_id(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[str]] = {}

    def snapshot(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = find_model("org/name")
    assert (source.name, source.folder, source.reference) == ("org/name", model, "org/name")
    assert not any("bin" in pattern or "py" in pattern for pattern in asked["org/name"])
    find_model("org/coded", trust_remote_code=True)
    assert "*.py" in asked["org/coded"]
