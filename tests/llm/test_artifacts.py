"""Artifacts: plain Hugging Face and PEFT load them, innerloop loads them back, halves are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from innerloop.core.checkpoint import CheckpointFolder
from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.artifacts import ArtifactInfo, InnerRuleInfo, load_artifact, merge_lora, save_artifact
from innerloop.llm.lora import LoraSpec
from innerloop.llm.model import LoadedModel, ModelSpec, load_model
from innerloop.llm.versions import library_versions
from tiny_llama import save_tiny_llama, tiny_llama

IDS = torch.arange(3, 19).reshape(2, 8)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model(IDS).logits
    return output


def info_of(loaded: LoadedModel) -> ArtifactInfo:
    return ArtifactInfo(
        algorithm="fomaml",
        adapts="lora" if isinstance(loaded.model, PeftModel) else "full",
        base_model=loaded.base_model,
        base_path=loaded.base_path,
        inner=InnerRuleInfo("sgd", {"a": (0.1, 0.2)}, steps=2, batch_size=4, max_grad_norm=None),
        data_manifest_hash=None,
        seed=0,
        step=3,
        config={"meta": {"algorithm": "fomaml"}},
        versions=library_versions(),
    )


def trained(base: Path, lora: bool) -> LoadedModel:
    """A loaded model whose trainable parameters have moved."""
    loaded = load_model(ModelSpec(str(base), lora=LoraSpec(rank=4) if lora else None, device="cpu"))
    with torch.no_grad():
        for parameter in loaded.trainable_parameters().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return loaded


def write(run: Path, loaded: LoadedModel, step: int = 3) -> Path:
    def fill(folder: Path) -> None:
        save_artifact(folder, loaded.model, loaded.tokenizer, info_of(loaded))

    return CheckpointFolder(run).save(step, fill)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base")


@pytest.fixture
def lora_step(tmp_path: Path, base: Path) -> Path:
    return write(tmp_path / "run", trained(base, lora=True))


@pytest.fixture
def full_step(tmp_path: Path, base: Path) -> Path:
    return write(tmp_path / "run", trained(base, lora=False))


def test_a_full_model_loads_with_plain_transformers(tmp_path: Path, base: Path) -> None:
    loaded = trained(base, lora=False)
    step = write(tmp_path / "run", loaded)
    plain = AutoModelForCausalLM.from_pretrained(step)
    assert torch.equal(logits(plain), logits(loaded.model))
    assert not torch.equal(logits(plain), logits(tiny_llama()))
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(step)
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    assert tokenizer("Hi there").input_ids == loaded.tokenizer("Hi there").input_ids


def test_an_adapter_loads_with_plain_peft(tmp_path: Path, base: Path) -> None:
    loaded = trained(base, lora=True)
    step = write(tmp_path / "run", loaded)
    config = PeftConfig.from_pretrained(step)
    assert config.base_model_name_or_path == str(base)
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(config.base_model_name_or_path), step
    )
    assert torch.equal(logits(plain), logits(loaded.model))
    assert not torch.equal(logits(plain), logits(tiny_llama()))
    assert not list(step.glob("*.bin"))
    assert not list(step.glob("model*.safetensors"))


@pytest.mark.parametrize("lora", [True, False])
def test_it_loads_back_from_the_step_and_from_the_run(tmp_path: Path, base: Path, lora: bool) -> None:
    first, last = trained(base, lora), trained(base, lora)
    write(tmp_path / "run", first, step=3)
    write(tmp_path / "run", last, step=12)
    for path, expected in (("run/step_3", first), ("run", last), ("run/latest", last)):
        artifact = load_artifact(tmp_path / path, trainable=False, device="cpu")
        assert torch.equal(logits(artifact.loaded.model), logits(expected.model))
        assert artifact.info == info_of(expected)
        assert not artifact.loaded.trainable_parameters()
        assert isinstance(artifact.loaded.model, PeftModel) == lora
    artifact = load_artifact(tmp_path / "run", trainable=True, device="cpu")
    assert artifact.loaded.trainable_parameters().keys() == last.trainable_parameters().keys()
    assert artifact.folder == tmp_path / "run" / "step_12"


def test_models_from_elsewhere_load_without_info(tmp_path: Path, base: Path, lora_step: Path) -> None:
    (lora_step / "innerloop.json").unlink()
    for path in (base, lora_step):
        artifact = load_artifact(path, trainable=True, device="cpu")
        assert artifact.info is None
        assert artifact.loaded.trainable_parameters()
        assert artifact.loaded.base_path == str(base)


def test_training_goes_on_from_an_artifact(full_step: Path) -> None:
    """A full artifact can carry a new adapter; plain PEFT then finds the artifact as its base."""
    loaded = load_model(ModelSpec(str(full_step), lora=LoraSpec(rank=2), device="cpu"))
    assert loaded.base_path == str(full_step)
    assert torch.equal(logits(loaded.model), logits(AutoModelForCausalLM.from_pretrained(full_step)))


def test_merging_gives_a_plain_model(tmp_path: Path, lora_step: Path) -> None:
    artifact = load_artifact(lora_step, trainable=False, device="cpu", dtype="float64")
    expected = logits(artifact.loaded.model)
    assert isinstance(artifact.loaded.model, PeftModel)
    assert artifact.info is not None
    merged = merge_lora(artifact.loaded.model)
    out = tmp_path / "merged"
    out.mkdir()
    save_artifact(out, merged, artifact.loaded.tokenizer, replace(artifact.info, adapts="full"))
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.dtype == torch.float64
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=1e-12)


def test_given_weights_are_written_instead_of_the_models_own(tmp_path: Path, base: Path) -> None:
    for lora in (True, False):
        loaded, other = trained(base, lora), trained(base, lora)
        folder = tmp_path / f"given_{lora}"
        folder.mkdir()
        save_artifact(folder, loaded.model, loaded.tokenizer, info_of(loaded), other.model.state_dict())
        again = load_artifact(folder, trainable=False, device="cpu")
        assert torch.equal(logits(again.loaded.model), logits(other.model))


def test_info_must_say_what_the_model_is(tmp_path: Path, base: Path) -> None:
    loaded = trained(base, lora=True)
    with pytest.raises(InputError, match="adapts is 'full', and the model is PeftModelForCausalLM"):
        save_artifact(tmp_path, loaded.model, loaded.tokenizer, replace(info_of(loaded), adapts="full"))


def test_an_alias_comes_before_the_recorded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine: adapter_config.json names a folder of the first, innerloop.json the alias."""
    here, there = save_tiny_llama(tmp_path / "here"), save_tiny_llama(tmp_path / "there")
    monkeypatch.setattr(smollm, "folder", lambda: here)
    loaded = load_model(ModelSpec("smollm2-135m", lora=LoraSpec(), device="cpu"))
    assert (loaded.base_model, loaded.base_path) == ("smollm2-135m", str(here))
    step = write(tmp_path / "run", loaded)
    assert PeftConfig.from_pretrained(step).base_model_name_or_path == str(here)

    monkeypatch.setattr(smollm, "folder", lambda: there)
    again = load_artifact(step, trainable=False, device="cpu").loaded
    assert (again.base_model, again.base_path) == ("smollm2-135m", str(there))


def test_a_recorded_folder_serves_where_the_alias_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = save_tiny_llama(tmp_path / "here")
    monkeypatch.setattr(smollm, "folder", lambda: here)
    step = write(tmp_path / "run", load_model(ModelSpec("smollm2-135m", lora=LoraSpec(), device="cpu")))

    def not_here() -> Path:
        raise InputError("the model 'smollm2-135m' is not on this machine")

    monkeypatch.setattr(smollm, "folder", not_here)
    assert load_artifact(step, trainable=False, device="cpu").loaded.base_path == str(here)
    here.rename(tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"'smollm2-135m' is not on this machine; model '.*/here': there is no"
    ):
        load_artifact(step, trainable=False)


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-50])


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


@pytest.mark.parametrize(
    ("adapts", "damage", "message"),
    [
        (
            "lora",
            remove("adapter_model.safetensors"),
            "half an adapter: adapter_model.safetensors is missing",
        ),
        ("lora", remove("adapter_config.json"), "half an adapter: adapter_config.json is missing"),
        ("lora", cut("adapter_model.safetensors"), "cannot be put on"),
        ("lora", cut("adapter_config.json"), "adapter_config.json cannot be read as JSON"),
        ("lora", cut("innerloop.json"), "innerloop.json cannot be read as JSON"),
        ("full", remove("model.safetensors"), "half a model: model.safetensors is missing"),
        ("full", remove("config.json"), "half a model: config.json is missing"),
        ("full", cut("model.safetensors"), "cannot be loaded"),
        ("full", cut("innerloop.json"), "innerloop.json cannot be read as JSON"),
    ],
)
def test_half_an_artifact_is_one_clear_line(
    lora_step: Path, tmp_path: Path, base: Path, adapts: str, damage: Callable[[Path], None], message: str
) -> None:
    step = lora_step if adapts == "lora" else write(tmp_path / "full", trained(base, lora=False))
    damage(step)
    with pytest.raises(InputError, match=message) as caught:
        load_artifact(step, trainable=False, device="cpu")
    assert "\n" not in str(caught.value)


def test_saving_asks_no_hub_and_writes_no_pickle(lora_step: Path) -> None:
    names = {path.name for path in lora_step.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "innerloop.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert json.loads((lora_step / "adapter_config.json").read_text())["target_modules"]
