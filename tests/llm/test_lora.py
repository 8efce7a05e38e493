"""LoRA adapters: where they go, how they start, and that they merge into the weights they adapt."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from innerloop.core.errors import InputError
from innerloop.llm.lora import LoraSpec, adapted_modules, attach_lora, load_lora, merge_lora, planned_modules
from tiny_llama import tiny_llama

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.arange(3, 19).reshape(2, 8)


def adapter_state(seed: int) -> dict[str, torch.Tensor]:
    adapted = attach_lora(tiny_llama(), LoraSpec(rank=4, seed=seed), "base")
    return {name: p.detach() for name, p in adapted.named_parameters() if p.requires_grad}


def disturb(model: torch.nn.Module) -> None:
    """Gives B numbers, so that the adapter does something."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize(
    ("spec", "layers", "modules"),
    [
        (LoraSpec(), (0, 1, 2, 3), LINEAR),
        (LoraSpec(layers="all"), (0, 1, 2, 3), LINEAR),
        (LoraSpec(layers="upper_half"), (2, 3), LINEAR),
        (LoraSpec(target_modules=("q_proj", "v_proj"), layers=(1,)), (1,), ("q_proj", "v_proj")),
        (LoraSpec(target_modules=("mlp.up_proj",), layers=(3, 0)), (0, 3), ("up_proj",)),
    ],
)
def test_placement(spec: LoraSpec, layers: tuple[int, ...], modules: tuple[str, ...]) -> None:
    model = tiny_llama(layers=4)
    planned = planned_modules(model, spec)
    adapted = attach_lora(model, spec, "base")
    block = {name: "mlp" if name in LINEAR[4:] else "self_attn" for name in modules}
    assert adapted_modules(adapted) == planned
    assert planned == {f"model.layers.{i}.{block[name]}.{name}" for i in layers for name in modules}
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * len(planned)
    assert all("lora_" in name for name in trainable)


def test_layers_of_a_model_of_odd_depth() -> None:
    adapted = attach_lora(
        tiny_llama(layers=3), LoraSpec(target_modules=("q_proj",), layers="upper_half"), "base"
    )
    assert adapted_modules(adapted) == {f"model.layers.{i}.self_attn.q_proj" for i in (1, 2)}


def test_embeddings_and_head_can_be_targets() -> None:
    adapted = attach_lora(tiny_llama(), LoraSpec(target_modules=("embed_tokens", "lm_head")), "base")
    assert adapted_modules(adapted) == {"model.embed_tokens", "lm_head"}


def test_convolution_style_linear_layers_are_adapted() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    spec = LoraSpec(layers=(1,))
    planned = planned_modules(model, spec)
    adapted = attach_lora(model, spec, "base")
    assert adapted_modules(adapted) == planned
    assert {name.rpartition(".")[2] for name in planned} == {"c_attn", "c_proj", "c_fc"}


def test_the_same_seed_gives_the_same_adapter_and_leaves_the_random_state_alone() -> None:
    first = adapter_state(seed=7)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    second = adapter_state(seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = adapter_state(seed=8)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_it_starts_as_the_base() -> None:
    base = tiny_llama()
    expected = base(IDS).logits
    adapted = attach_lora(base, LoraSpec(rank=4), "some/base")
    assert torch.equal(adapted(IDS).logits, expected)
    assert adapted.peft_config["default"].base_model_name_or_path == "some/base"


@pytest.mark.parametrize(
    ("weights", "adapter"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_the_adapter_has_at_least_single_precision(weights: torch.dtype, adapter: torch.dtype) -> None:
    adapted = attach_lora(tiny_llama(dtype=weights), LoraSpec(), "base")
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {adapter}
    assert adapted(IDS).logits.dtype == weights


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            lambda: LoraSpec(target_modules=("q_prj",)),
            r"'q_prj' is no module of this model; did you mean 'q_proj'\? it has down_proj, embed_tokens",
        ),
        (lambda: LoraSpec(target_modules=("zzzz",)), "'zzzz' is no module of this model; it has down_proj"),
        (
            lambda: LoraSpec(target_modules=("input_layernorm",)),
            "'input_layernorm' is a LlamaRMSNorm, which LoRA cannot adapt; choose among down_proj",
        ),
        (lambda: LoraSpec(target_modules=("q_proj", "mlp")), "'mlp' is a LlamaMLP, which LoRA cannot adapt"),
        (lambda: LoraSpec(layers=(0, 2)), "names layer 2; this model has 0 to 1"),
        (lambda: LoraSpec(layers=(-1,)), "names layer -1; this model has 0 to 1"),
        (lambda: LoraSpec(layers=()), "names layer none; this model has 0 to 1"),
        (
            lambda: LoraSpec(target_modules=("q_proj", "lm_head"), layers=(0,)),
            "'lm_head' is in none of the layers",
        ),
        (lambda: LoraSpec(rank=0), "lora_rank is 0; it must be 1 or more"),
        (lambda: LoraSpec(alpha=float("nan")), "lora_alpha is nan; it must be above 0"),
        (lambda: LoraSpec(dropout=1.0), r"lora_dropout is 1\.0; it must be in \[0, 1\)"),
        (lambda: LoraSpec(target_modules=()), "target_modules is empty"),
    ],
)
def test_what_cannot_be_is_refused(spec: Callable[[], LoraSpec], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attach_lora(tiny_llama(), spec(), "base")


def test_a_merged_adapter_computes_the_same() -> None:
    adapted = attach_lora(tiny_llama(dtype=torch.float64), LoraSpec(rank=4), "base")
    disturb(adapted)
    expected = adapted(IDS).logits
    merged = merge_lora(adapted)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-12)
    assert (tiny_llama(dtype=torch.float64)(IDS).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_a_tied_weight_is_not_merged(target: str) -> None:
    adapted = attach_lora(tiny_llama(), LoraSpec(target_modules=(target,)), "base")
    with pytest.raises(InputError, match=f"the adapter on '.*{target}' cannot be merged"):
        merge_lora(adapted)


def test_a_saved_adapter_comes_back(tmp_path: Path) -> None:
    adapted = attach_lora(tiny_llama(), LoraSpec(rank=4), "base")
    disturb(adapted)
    adapted.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    frozen = load_lora(tiny_llama(), tmp_path, trainable=False, reference="elsewhere")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(frozen(IDS).logits, adapted(IDS).logits)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert frozen.peft_config["default"].base_model_name_or_path == "elsewhere"
    trainable = load_lora(tiny_llama(), tmp_path, trainable=True, reference="elsewhere")
    assert {name for name, p in trainable.named_parameters() if p.requires_grad} == {
        name for name, p in adapted.named_parameters() if p.requires_grad
    }


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    attach_lora(tiny_llama(layers=3), LoraSpec(), "base").save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"does not fit 'base': 0 of its tensors are missing and 14 have no place"
    ):
        load_lora(tiny_llama(layers=2), tmp_path, trainable=False, reference="base")
    with pytest.raises(InputError, match=r"does not fit 'base': 14 of its tensors are missing and 0 have no"):
        load_lora(tiny_llama(layers=4), tmp_path, trainable=False, reference="base")
