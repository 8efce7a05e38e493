"""The model that benchmarks without weights of their own run on: a random Llama and its next-token loss."""

from pathlib import Path

import torch
from peft.tuners.lora import Linear as LoraLinear
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from innerloop.llm.data.tokens import TokenizedRow
from innerloop.llm.products import OneDnnLinear, OneDnnLoraLinear

VOCABULARY = 512


def random_llama(layers: int) -> LlamaForCausalLM:
    """A Llama of width 256 with four heads, always with the same weights.

    Its attention is the eager one, which can be differentiated twice and mapped over tasks.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        attn_implementation="eager",
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def save_random_llama(folder: Path) -> Path:
    """Twelve layers of it as a Hugging Face folder, with a tokenizer that knows one word."""
    random_llama(layers=12).save_pretrained(folder)
    one_word_tokenizer().save_pretrained(folder)
    return folder


def one_word_tokenizer() -> PreTrainedTokenizerFast:
    """For benchmarks that make their tokens at random: it can only end a sequence."""
    words = Tokenizer(WordLevel({"<end>": 0}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<end>")


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """The mean loss of predicting each of ``tokens``, shape ``(rows, length)``, from those before it."""
    value: Tensor = model(input_ids=tokens, labels=tokens).loss
    return value


def random_tokens(*shape: int) -> Tensor:
    """Always the same tokens for the same shape."""
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(1))


def padded(rows: list[TokenizedRow], width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, which of them count, and which are learned; (B, width) each, padded on the right.

    Without a width it is that of the longest row.
    """
    width = width or max(len(row.input_ids) for row in rows)
    ids, seen, learned = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for i, row in enumerate(rows):
        n = len(row.input_ids)
        ids[i, :n], seen[i, :n], learned[i, :n] = (
            torch.tensor(row.input_ids),
            1,
            torch.tensor(row.response_mask),
        )
    return ids, seen, learned


def with_pytorch_products(model: nn.Module) -> None:
    """Gives a model that innerloop loaded the linear layers of PyTorch and PEFT back, for the plain loops."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = nn.Linear
        elif type(module) is OneDnnLoraLinear:
            module.__class__ = LoraLinear
