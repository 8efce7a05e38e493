"""GGUF files made into Hugging Face folders: same numbers, same tokens as the model was trained on."""

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from innerloop.core.errors import InputError
from innerloop.llm import gguf
from innerloop.llm.gguf import cached_conversion, convert
from tiny_gguf import gguf_llama, write_gguf


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", gguf_llama(), "smollm")


def test_conversion_keeps_every_number(file: Path) -> None:
    torch.manual_seed(0)
    original = gguf_llama()
    converted = AutoModelForCausalLM.from_pretrained(cached_conversion(file))
    ids = torch.randint(3, original.config.vocab_size, (2, 11))
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted(ids).logits, original(ids).logits, rtol=0, atol=1e-6)
    assert converted.lm_head.weight is converted.model.embed_tokens.weight


def test_conversion_draws_no_bars(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(file, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_the_folder_is_an_ordinary_one(file: Path) -> None:
    config = json.loads((cached_conversion(file) / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_conversion_leaves_the_random_state_alone(file: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    convert(file, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_text_is_cut_at_every_digit(file: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(cached_conversion(file))
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]
    assert tokenizer.tokenize("a  1") == ["a", "ĠĠ", "1"]
    assert tokenizer.decode(tokenizer("a\n\n12  é 日").input_ids) == "a\n\n12  é 日"
    assert tokenizer("a").input_ids == [tokenizer.convert_tokens_to_ids("a")]  # no BOS of its own accord
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert tokenizer.model_max_length == 2048
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert chat == "<|im_start|>user\nq<|im_end|>\n"


def test_a_vocabulary_like_gpt2_is_cut_like_gpt2(tmp_path: Path) -> None:
    convert(write_gguf(tmp_path / "plain.gguf", gguf_llama(), "gpt-2"), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize("a\n\n1") == ["a", "Ċ", "Ċ", "1"]


def test_an_unknown_pre_tokenizer_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        convert(write_gguf(tmp_path / "odd.gguf", gguf_llama(), "unheard-of"), tmp_path)
    assert "pre-tokenizer 'unheard-of' is not known" in caplog.text


def test_conversion_happens_once_for_the_same_content(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_conversion(file)
    copy = tmp_path / "tiny.gguf"
    copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(gguf, "convert", None)
    assert cached_conversion(copy) == first


@pytest.mark.parametrize("damage", ["empty", "cut short", "another format"])
def test_a_damaged_file_is_refused_and_leaves_nothing(file: Path, tmp_path: Path, damage: str) -> None:
    whole = file.read_bytes()
    content = {"empty": b"", "cut short": whole[: len(whole) // 2], "another format": b"PK" + whole[2:]}[
        damage
    ]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.gguf cannot be read as a GGUF language model"):
        cached_conversion(broken)
    assert [
        path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"
    ] == []


def test_the_missing_library_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'innerloop\[smollm\]'"):
        convert(file, tmp_path)
