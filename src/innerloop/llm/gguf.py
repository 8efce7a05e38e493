"""A GGUF file made into a Hugging Face model folder, weights unpacked.

Training needs plain weights, and an adapter needs a base that any PEFT user can load, so a GGUF file is
converted once into the cache and used from there. Where a named model's file comes from is in ``smollm.py``.
"""

import hashlib
import importlib.util
import io
import logging
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from innerloop.cache import build_once, cache_folder
from innerloop.core.errors import InputError, missing_extra
from innerloop.llm.quiet import without_progress_bars

logger = logging.getLogger(__name__)

# Part of the cached folder's path: a change in what conversion writes must not meet an old folder.
CONVERSION = "gguf-v1"

_PRE_TOKENIZER_FIELD = "tokenizer.ggml.pre"
# Byte-level vocabularies whose text is cut at every digit first. transformers (5.23) leaves that out when it
# builds a tokenizer from GGUF, and then "\n\n1" or two spaces before a digit come out as other tokens than
# the model was trained on. The names are llama.cpp's.
_DIGIT_BY_DIGIT = frozenset({"smollm", "starcoder", "refact", "command-r"})
_PLAIN_BYTE_LEVEL = frozenset({"gpt-2", "gpt2", "default", "mpt", "olmo", "jais", "phi-2"})


def cached_conversion(file: Path) -> Path:
    """The Hugging Face folder of a GGUF file, converted now unless the cache holds it.

    Args:
        file: the GGUF file. The cache goes by its content, so a renamed or changed file is no trap.

    Raises:
        InputError: if the file cannot be read as a GGUF language model.
    """
    name = f"{file.stem}-{sha256(file)[:12]}"
    return build_once(cache_folder() / CONVERSION / name, lambda folder: convert(file, folder))


def convert(file: Path, folder: Path, pre_tokenizer: str | None = None) -> None:
    """Writes a GGUF file's model and tokenizer into a folder that ``from_pretrained`` loads.

    Args:
        file: the GGUF file.
        folder: an existing, empty folder.
        pre_tokenizer: llama.cpp's name of the vocabulary's pre-tokenizer, where it is known; reading it from
            the file costs several seconds.

    Raises:
        InputError: if the file cannot be read as a GGUF language model, or the ``gguf`` library is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "smollm")
    logger.info("converting %s into a Hugging Face folder, once", file)
    try:
        # The config is read on its own, and the tokenizer by its general class, because each of the
        # automatic ways parses the whole header once more, several seconds a time.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        name = pre_tokenizer or _pre_tokenizer_name(file)
        with without_progress_bars(), redirect_stderr(io.StringIO()):  # the reader's own bar has no switch
            packed = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, config=config, dtype="auto", **_unpacked()
            )
    except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} cannot be read as a GGUF language model: {reason}") from error

    # The loaded model still calls itself quantised and refuses to be saved; a fresh one of the same shape
    # takes over its weights.
    settings = packed.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key, None)
    automatic: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):  # a run must not depend on whether the cache was filled in it
        plain = automatic.from_config(type(packed.config).from_dict(settings), dtype=packed.dtype)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    with without_progress_bars():
        plain.save_pretrained(folder)

    _mend_tokenizer(tokenizer, name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unpacked() -> dict[str, object]:
    """Asks for plain weights; releases of transformers that know no packed ones need not be asked."""
    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def _pre_tokenizer_name(file: Path) -> str | None:
    from gguf import GGUFReader  # an optional part, looked for before any work began

    field = GGUFReader(file).get_field(_PRE_TOKENIZER_FIELD)
    return None if field is None else str(field.contents())


def _mend_tokenizer(tokenizer: PreTrainedTokenizerFast, pre_tokenizer: str | None) -> None:
    """Gives a byte-level tokenizer the pre-tokenizer its vocabulary was trained with."""
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return  # built with a pre-tokenizer of its own
    if pre_tokenizer in _DIGIT_BY_DIGIT:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif pre_tokenizer not in _PLAIN_BYTE_LEVEL:
        logger.warning(
            "the GGUF file's pre-tokenizer '%s' is not known here; text is cut the way GPT-2 does, "
            "which may not be how the model was trained",
            pre_tokenizer,
        )
