"""Loading models: dtype, attention, checkpointing, tokenizer, adapters taken up, bad input in one line."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from innerloop.core.errors import InputError
from innerloop.llm.adaptable import load_adaptable
from innerloop.llm.config import load_config
from innerloop.llm.data.rows import make_row
from innerloop.llm.data.tokens import tokenize
from innerloop.llm.lora import LoraSpec, attach_lora
from innerloop.llm.model import ModelSpec, load_model
from tiny_llama import save_tiny_llama, tiny_llama, tiny_tokenizer

IDS = torch.arange(3, 19).reshape(2, 8)
LORA = LoraSpec(rank=4, layers="upper_half")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model")


@pytest.fixture
def spec(folder: Path) -> ModelSpec:
    return ModelSpec(str(folder), device="cpu")


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """A saved adapter with a B that is not zero."""
    adapted = attach_lora(tiny_llama(), LORA, str(folder))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model(IDS).logits
    return output


def test_a_plain_model_loads_as_it_was_saved(spec: ModelSpec, folder: Path) -> None:
    loaded = load_model(spec)
    assert torch.equal(logits(loaded.model), logits(tiny_llama()))
    assert (loaded.base_model, loaded.base_path) == (str(folder), str(folder))
    assert loaded.device == torch.device("cpu")
    assert not loaded.model.training
    assert loaded.trainable_parameters().keys() == dict(tiny_llama().named_parameters()).keys()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.float32),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("float64", torch.float64),
    ],
)
def test_dtypes(spec: ModelSpec, dtype: str, expected: torch.dtype) -> None:
    model = load_model(replace(spec, dtype=dtype)).model
    assert {p.dtype for p in model.parameters()} == {expected}
    assert logits(model).dtype == expected


def test_auto_keeps_the_stored_dtype(folder: Path) -> None:
    tiny_llama(dtype=torch.bfloat16).save_pretrained(folder)
    assert load_model(ModelSpec(str(folder), device="cpu")).model.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_attention(spec: ModelSpec, name: str) -> None:
    model = load_model(replace(spec, attn_implementation=name)).model
    assert model.config._attn_implementation == name
    torch.testing.assert_close(logits(model), logits(load_model(spec).model), rtol=0, atol=1e-5)


def test_flash_attention_is_left_for_sdpa_on_a_cpu(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(replace(spec, attn_implementation="flash_attention_2")).model
    assert model.config._attn_implementation == "sdpa"
    assert "'flash_attention_2' is left for 'sdpa': it does not run on 'cpu'" in caplog.text


@pytest.mark.parametrize("lora", [None, LORA])
def test_checkpointing_changes_no_gradient(spec: ModelSpec, lora: LoraSpec | None) -> None:
    gradients = []
    for checkpointing in (False, True):
        loaded = load_model(replace(spec, lora=lora, gradient_checkpointing=checkpointing))
        layers = [module for module in loaded.model.modules() if hasattr(module, "gradient_checkpointing")]
        assert layers
        assert {module.gradient_checkpointing for module in layers} == {checkpointing}
        assert not loaded.model.get_input_embeddings()._forward_hooks
        loaded.model.train()
        loaded.model(IDS, labels=IDS).loss.backward()
        gradients.append({name: p.grad for name, p in loaded.trainable_parameters().items()})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert gradient is not None
        torch.testing.assert_close(recomputed[name], gradient)


def test_loading_leaves_the_random_state_alone(spec: ModelSpec, adapter: Path) -> None:
    before = torch.get_rng_state()
    load_model(spec)
    load_model(replace(spec, lora=LORA))
    load_model(replace(spec, name=str(adapter)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_adapter(spec: ModelSpec, folder: Path) -> None:
    first, second = (load_model(replace(spec, lora=LORA)) for _ in range(2))
    assert isinstance(first.model, PeftModel)
    assert first.model.peft_config["default"].base_model_name_or_path == str(folder)
    assert all("lora_" in name and ".1." in name for name in first.trainable_parameters())
    for name, parameter in first.trainable_parameters().items():
        assert torch.equal(parameter, second.trainable_parameters()[name])


def test_a_saved_adapter_is_taken_up_where_it_was_left(spec: ModelSpec, adapter: Path, folder: Path) -> None:
    expected = logits(PeftModel.from_pretrained(tiny_llama(), adapter))
    loaded = load_model(replace(spec, name=str(adapter), lora=LORA))
    assert isinstance(loaded.model, PeftModel)
    assert torch.equal(logits(loaded.model), expected)
    assert len(loaded.trainable_parameters()) == 14
    assert (loaded.base_model, loaded.base_path) == (str(folder), str(folder))


def test_full_training_from_an_adapter_merges_it_first(spec: ModelSpec, adapter: Path) -> None:
    expected = logits(PeftModel.from_pretrained(tiny_llama(), adapter))
    loaded = load_model(replace(spec, name=str(adapter)))
    assert not isinstance(loaded.model, PeftModel)
    assert loaded.trainable_parameters().keys() == dict(tiny_llama().named_parameters()).keys()
    torch.testing.assert_close(logits(loaded.model), expected, rtol=0, atol=1e-5)
    assert (expected - logits(tiny_llama())).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (replace(LORA, rank=8), "has lora_rank=4, and 8 is asked for; set lora_rank=4"),
        (replace(LORA, alpha=32), "has lora_alpha=16.*, and 32 is asked for"),
        (replace(LORA, dropout=0.1), "has lora_dropout=0.*, and 0.1 is asked for"),
        (replace(LORA, layers=None), r"is on other modules .* for example model\.layers\.0"),
        (replace(LORA, target_modules=("q_proj",)), "is on other modules"),
    ],
)
def test_a_saved_adapter_of_another_shape_is_refused(
    spec: ModelSpec, adapter: Path, lora: LoraSpec, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(replace(spec, name=str(adapter), lora=lora))


def test_a_tokenizer_without_padding_gets_some(folder: Path, spec: ModelSpec) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_model(spec).tokenizer.pad_token == "<|im_end|>"


def test_an_adapter_brings_its_own_tokenizer(spec: ModelSpec, adapter: Path) -> None:
    assert load_model(replace(spec, name=str(adapter))).tokenizer.chat_template is not None
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ 'own' }}"
    tokenizer.save_pretrained(adapter)
    assert load_model(replace(spec, name=str(adapter))).tokenizer.chat_template == "{{ 'own' }}"


def test_the_chat_template_can_be_left_out(spec: ModelSpec, tmp_path: Path) -> None:
    plain = load_model(replace(spec, use_chat_template=False)).tokenizer
    row = make_row("a b", "c", None, {})
    assert plain.decode(tokenize(row, plain, 64).input_ids) == f"a b c{plain.eos_token}"
    plain.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None  # so an artifact stays plain
    assert load_model(spec).tokenizer.chat_template is not None


@pytest.mark.parametrize("kept", [True, False])
def test_another_tokenizer_is_laid_out_as_the_settings_say(folder: Path, tmp_path: Path, kept: bool) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    words = [f"model.partial_pretrain={folder}", f"data.use_chat_template={str(kept).lower()}"]
    model = load_adaptable(
        str(folder), load_config(overrides=words), "cpu", tokenizer_path=str(tmp_path / "other")
    )
    assert (model.loaded.tokenizer.chat_template is not None) == kept
    with pytest.raises(InputError, match="nowhere holds no tokenizer that can be loaded"):
        load_adaptable(str(folder), device="cpu", tokenizer_path=str(tmp_path / "nowhere"))


def without_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100])


def configured(file: str, key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        settings = json.loads((folder / file).read_text())
        settings[key] = value
        (folder / file).write_text(json.dumps(settings))

    return change


def with_code_of_its_own(folder: Path) -> None:
    configured("config.json", "model_type", "unheard_of")(folder)
    configured("config.json", "auto_map", {"AutoModelForCausalLM": "code.M", "AutoConfig": "code.C"})(folder)


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def with_a_larger_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut("model.safetensors"), "cannot be loaded: .*"),
        (without_a_tensor, r"incomplete: 1 tensors are missing, for example model\.layers\.1\.mlp\.up_proj"),
        (configured("config.json", "model_type", "unheard_of"), "cannot be loaded: .*unheard_of"),
        (configured("config.json", "hidden_size", 64), "cannot be loaded"),
        (
            with_code_of_its_own,
            "brings its own Python code; if you trust it, set model.trust_remote_code=true",
        ),
        (without_tokenizer, "holds no tokenizer that can be loaded"),
        (cut("tokenizer.json"), "holds no tokenizer that can be loaded"),
        (configured("tokenizer_config.json", "eos_token", None), "has no end-of-sequence token"),
        (with_a_larger_tokenizer, "has 260 tokens and its model only 259"),
    ],
)
def test_a_damaged_model_is_one_clear_line(
    spec: ModelSpec, folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "half"}, "dtype 'half' is not known"),
        ({"device": "gpu"}, "device 'gpu' is not known"),
        ({"attn_implementation": "fast"}, "attn_implementation 'fast' is not known"),
        ({"lora": LoraSpec(target_modules=("query",))}, "LoRA target 'query' is no module"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(spec: ModelSpec, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(replace(spec, **change))


def test_a_cut_adapter_is_one_clear_line(spec: ModelSpec, adapter: Path) -> None:
    cut("adapter_model.safetensors")(adapter)
    with pytest.raises(InputError, match=r"the adapter .* cannot be put on"):
        load_model(replace(spec, name=str(adapter)))
