"""Text from a causal language model: batched, left-padded, greedy or sampled.

The loop is our own because ``transformers.generate`` takes over whatever the model's generation config asks
for (a repetition penalty, say), and samples from one stream for the whole batch. Here an answer depends on
its own prompt, and when sampled on the seed and its place in the list, never on what shares its batch.
Grading is in ``evaluate``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.llm.data.rows import Message, Row
from innerloop.llm.data.tokens import decode_answer, tokenize_prompt
from innerloop.llm.decoding import continue_rows


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[str]:
    """Answers each prompt as one user turn through the tokenizer's chat template.

    Args:
        model: in any mode; left in it.
        tokenizer: the model's.
        prompts: the users' texts.
        max_new_tokens: tokens an answer may have.
        temperature: 0 takes the likeliest token each time; above 0 samples, hotter is wilder.
        seed: of the samples.
        batch_size: prompts answered at a time.

    Returns:
        The answers in the order of the prompts, without special tokens.

    Raises:
        InputError: if a number is out of range or a prompt is empty or too long for the model.
    """
    for index, prompt in enumerate(prompts):
        if not prompt.strip():
            raise InputError(f"prompt {index + 1} is empty")
    answers = generate_ids(
        model,
        [tokenize_prompt(_question(prompt), tokenizer) for prompt in prompts],
        stop_ids(model, tokenizer),
        max_new_tokens,
        temperature,
        seed,
        batch_size,
    )
    return [decode_answer(answer, tokenizer) for answer in answers]


def generate_ids(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    stops: frozenset[int],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[list[int]]:
    """Continues each token sequence until a stop token.

    Args:
        model: in any mode; left in it.
        prompts: token ids, at least one each.
        stops: tokens that end an answer.
        max_new_tokens: tokens an answer may have.
        temperature: as for ``generate``.
        seed: as for ``generate``.
        batch_size: sequences continued at a time; those of like length go together.

    Returns:
        The new ids of each prompt, in order, without the stop token.

    Raises:
        InputError: if a number is out of range, or a prompt is empty or too long for the model.
    """
    _check(model, prompts, max_new_tokens, temperature, batch_size)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    answers: list[list[int]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            streams = [np.random.default_rng((seed, index)) for index in chosen]
            batch = [prompts[index] for index in chosen]
            continued = _continue(model, batch, stops, max_new_tokens, temperature, streams)
            for index, answer in zip(chosen, continued, strict=True):
                answers[index] = answer
    finally:
        model.train(was_training)
    return answers


def stop_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's EOS, and those the model's generation config names."""
    config = model.generation_config
    named = config.eos_token_id if config is not None else None
    ends = named if isinstance(named, list) else [named]
    return frozenset(int(end) for end in (tokenizer.eos_token_id, *ends) if end is not None)


def _continue(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    stops: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    streams: Sequence[np.random.Generator],
) -> list[list[int]]:
    ids, mask = (tensor.to(model.device) for tensor in _left_padded(prompts))
    return continue_rows(
        model,
        DynamicCache(config=model.config.get_text_config()),
        ids,
        mask,
        positions=(mask.cumsum(dim=1) - 1).clamp(min=0),
        stops=stops,
        rooms=[max_new_tokens] * len(prompts),
        choose=lambda logits, rows: _choose(logits, temperature, [streams[row] for row in rows]),
    )


def _choose(logits: Tensor, temperature: float, streams: Sequence[np.random.Generator]) -> list[int]:
    """One token a row of (B, V) logits: the likeliest, or a sample by the Gumbel-max trick (Gumbel 1954)."""
    scores = logits.float()
    if temperature > 0:
        noise = np.stack([stream.gumbel(size=scores.shape[1]) for stream in streams])
        scores = scores / temperature + torch.from_numpy(noise).to(scores)
    tokens: list[int] = scores.argmax(dim=1).tolist()
    return tokens


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, (B, L) each. What the padding holds is never attended to."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return ids, mask


def _check(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; it must be 0 (greedy) or a number above it")
    check_room(model, prompts, max_new_tokens)


def check_room(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
    """Makes sure that prompts and their answers fit into the model.

    Raises:
        InputError: if a prompt is empty or too long.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {index + 1} is empty")
        if context is not None and len(prompt) + max_new_tokens > context:
            raise InputError(
                f"prompt {index + 1} has {len(prompt)} tokens, which with {max_new_tokens} new ones exceeds "
                f"the model's {context}; shorten the prompt or lower max_new_tokens"
            )


def _question(prompt: str) -> Row:
    return Row(prompt=prompt, response="", messages=(Message("user", prompt), Message("assistant", "")))
