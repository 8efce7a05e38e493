"""Generation: what shares a batch changes nothing, EOS stops, the chat template is applied, seeds repeat."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from innerloop.core.errors import InputError
from innerloop.llm.generate import generate, generate_ids, stop_ids
from innerloop.llm.lora import LoraSpec, attach_lora
from tiny_llama import tiny_llama, tiny_tokenizer

STEADY = settings(deadline=None, derandomize=True, max_examples=10)
PROMPTS = ["a", "What is the capital of a country that is far away?", "two words", "x" * 90, "\n\n", "日本"]
NO_STOP: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """Sharper than a fresh one, so that the likeliest tokens are no near ties."""
    model = tiny_llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def reference(model: torch.nn.Module, prompt: list[int], stops: frozenset[int], length: int) -> list[int]:
    """Greedy decoding with no batch, no padding and no cache."""
    ids = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in stops:
            break
        ids.append(token)
    return ids[len(prompt) :]


token_lists = st.lists(st.lists(st.integers(3, 258), min_size=1, max_size=20), min_size=1, max_size=6)


@STEADY
@given(prompts=token_lists, batch_size=st.integers(1, 4))
def test_greedy_is_the_plain_loop_whatever_shares_the_batch(
    model: LlamaForCausalLM, prompts: list[list[int]], batch_size: int
) -> None:
    free = [reference(model, prompt, NO_STOP, 6) for prompt in prompts]
    assert generate_ids(model, prompts, NO_STOP, max_new_tokens=6, batch_size=batch_size) == free
    # Stopping at what some rows say third makes rows leave the batch at different times.
    stops = frozenset(answer[2] for answer in free[:2])
    expected = [reference(model, prompt, stops, 6) for prompt in prompts]
    assert generate_ids(model, prompts, stops, max_new_tokens=6, batch_size=batch_size) == expected


def test_absolute_positions_count_from_each_prompts_start() -> None:
    """Rotary positions are relative and would forgive an offset; GPT-2's are not and would not."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=16, n_layer=2, n_head=2, n_positions=64)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    prompts = [[5, 6, 7], [8] * 20, [9, 4, 9, 4, 9]]
    assert generate_ids(model, prompts, NO_STOP, max_new_tokens=6) == [
        reference(model, prompt, NO_STOP, 6) for prompt in prompts
    ]


def test_text_answers_are_those_of_single_prompts(model: LlamaForCausalLM) -> None:
    tokenizer = tiny_tokenizer()
    prompts = [prompt for prompt in PROMPTS if prompt.strip()]
    together = generate(model, tokenizer, prompts, max_new_tokens=12)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert together == alone
    assert len(set(together)) > 1


def test_the_prompt_goes_through_the_chat_template(model: LlamaForCausalLM) -> None:
    tokenizer = tiny_tokenizer()
    chat = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    expected = reference(model, tokenizer(chat).input_ids, stop_ids(model, tokenizer), 8)
    answer = generate(model, tokenizer, ["hello"], max_new_tokens=8)[0]
    assert answer == tokenizer.decode(expected, skip_special_tokens=True)


def test_an_adapter_speaks_for_itself(model: LlamaForCausalLM) -> None:
    adapted = attach_lora(tiny_llama(), LoraSpec(rank=4), "base")
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.copy_(torch.randn_like(parameter))
    prompts = [[5, 6, 7], [8] * 9]
    assert isinstance(adapted, PeftModel)
    assert generate_ids(adapted, prompts, NO_STOP, max_new_tokens=5) == [
        reference(adapted, prompt, NO_STOP, 5) for prompt in prompts
    ]


def test_the_models_own_generation_settings_do_not_interfere(model: LlamaForCausalLM) -> None:
    before = generate_ids(model, [[5, 6, 7]], NO_STOP, max_new_tokens=10)
    changed = tiny_llama()
    changed.load_state_dict(model.state_dict())
    changed.generation_config.repetition_penalty = 5.0
    changed.generation_config.do_sample = True
    assert generate_ids(changed, [[5, 6, 7]], NO_STOP, max_new_tokens=10) == before


def test_samples_depend_on_seed_and_place_alone(model: LlamaForCausalLM) -> None:
    prompts = [[5, 6, 7], [8] * 9, [9, 9], [5, 6, 7]]

    def sample(seed: int, batch_size: int) -> list[list[int]]:
        return generate_ids(model, prompts, NO_STOP, 8, temperature=3.0, seed=seed, batch_size=batch_size)

    before = torch.get_rng_state()
    together = sample(seed=1, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert sample(seed=1, batch_size=1) == together == sample(seed=1, batch_size=3)
    assert sample(seed=2, batch_size=4) != together
    assert together[0] != together[3]  # the same prompt, another place


def test_samples_follow_the_models_distribution() -> None:
    model = tiny_llama()
    with torch.no_grad():
        probabilities = (model(torch.tensor([[5, 6, 7]])).logits[0, -1] * 4).softmax(-1)
    count = 4000
    drawn = generate_ids(model, [[5, 6, 7]] * count, NO_STOP, 1, temperature=0.25, batch_size=1000)
    frequency = torch.bincount(torch.tensor(drawn).flatten(), minlength=len(probabilities)) / count
    assert (frequency - probabilities).abs().max() < 4 * (0.25 / count) ** 0.5


def test_a_low_temperature_is_nearly_greedy(model: LlamaForCausalLM) -> None:
    greedy = generate_ids(model, [[5, 6, 7]], NO_STOP, 8)
    assert generate_ids(model, [[5, 6, 7]], NO_STOP, 8, temperature=1e-6) == greedy


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_left_as_it_was(training: bool) -> None:
    model = attach_lora(tiny_llama(), LoraSpec(dropout=0.5), "base").train(training)
    first = generate_ids(model, [[5, 6, 7]], NO_STOP, 6)
    assert model.training == training
    assert generate_ids(model, [[5, 6, 7]], NO_STOP, 6) == first  # no dropout


def test_stop_tokens_come_from_tokenizer_and_model() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    assert stop_ids(model, tokenizer) == {2}
    model.generation_config.eos_token_id = [2, 7]
    assert stop_ids(model, tokenizer) == {2, 7}
    model.generation_config.eos_token_id = None
    assert stop_ids(model, tokenizer) == {2}


def test_no_prompts_no_answers(model: LlamaForCausalLM) -> None:
    assert generate(model, tiny_tokenizer(), []) == []


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[3]], {"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ([[3]], {"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ([[3]], {"temperature": -1.0}, r"temperature is -1\.0; it must be 0"),
        ([[3]], {"temperature": float("nan")}, "temperature is nan; it must be 0"),
        ([[3], []], {}, "prompt 2 is empty"),
        (
            [[3] * 2000],
            {"max_new_tokens": 49},
            "prompt 1 has 2000 tokens, which with 49 new ones exceeds .* 2048",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    model: LlamaForCausalLM, prompts: list[list[int]], options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate_ids(model, prompts, NO_STOP, **options)


def test_an_empty_text_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt 2 is empty"):
        generate(model, tiny_tokenizer(), ["a", "  "])
