"""`innerloop models`, `doctor` and `generate` as a user calls them."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.cli import main as command
from innerloop.llm import smollm
from innerloop.llm.artifacts import load_artifact
from innerloop.llm.generate import generate
from tiny_llama import save_tiny_llama


@pytest.fixture(autouse=True)
def only_these_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "GROUPS", ("models", "doctor", "generate"))
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model")


def call(*words: str) -> int:
    return command.main(words)


def answer(folder: Path, prompt: str, length: int) -> str:
    loaded = load_artifact(folder, trainable=False, device="cpu").loaded
    return generate(loaded.model, loaded.tokenizer, [prompt], max_new_tokens=length)[0]


def generated(folder: Path, *words: str) -> int:
    return call("generate", "--model-path", str(folder), "--device", "cpu", "--max-new-tokens", "6", *words)


class Terminal(io.StringIO):
    """A standard input on which somebody types."""

    def isatty(self) -> bool:
        return True


def test_doctor_prints_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor") == 0
    assert "optional part" in capsys.readouterr().out
    assert call("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["devices"][0]["name"] == "cpu"


def test_models_get_and_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smollm, "get", lambda: tmp_path)
    assert call("models", "get", "smollm2-135m") == 0
    assert f"smollm2-135m is ready in {tmp_path}" in capsys.readouterr().out
    assert call("models", "list") == 0
    assert "smollm2-135m" in capsys.readouterr().out


def test_generate_answers_an_argument(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generated(folder, "--prompt", "hello") == 0
    assert capsys.readouterr().out == answer(folder, "hello", 6) + "\n"


def test_generate_reads_the_whole_of_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert generated(folder) == 0
    assert capsys.readouterr().out == answer(folder, "two\nlines\n", 6) + "\n"


def test_generate_asks_again_until_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: Iterator[str] = iter(["first", "  ", "second"])

    def ask(prompt: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", ask)
    assert generated(folder) == 0
    assert capsys.readouterr().out == f"{answer(folder, 'first', 6)}\n{answer(folder, 'second', 6)}\n\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("models", "get", "smollm"), "did you mean 'smollm2-135m'?"),
        (("models",), "required: VERB"),
        (("generate", "--prompt", "x"), "required: --model-path"),
        (("generate", "--model-path", "./nowhere", "--prompt", "x"), "there is no such folder or file"),
        (("generate", "--model-path", "MODEL", "--prompt", " "), "prompt 1 is empty"),
        (
            ("generate", "--model-path", "MODEL", "--prompt", "x", "--temperature", "-1"),
            "temperature is -1.0",
        ),
        (
            ("generate", "--model-path", "MODEL", "--prompt", "x", "--max-new-tokens", "0"),
            "max_new_tokens is 0",
        ),
        (
            ("generate", "--model-path", "MODEL", "--prompt", "x", "--device", "tpu"),
            "device 'tpu' is not known",
        ),
        (
            ("generate", "--model-path", "MODEL", "--prompt", "x", "--dtype", "int4"),
            "dtype 'int4' is not known",
        ),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    try:
        code = call(*(str(folder) if word == "MODEL" else word for word in words))
    except SystemExit as stop:  # the parser's own way out
        code = int(str(stop.code))
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert message in said[-1]
    assert "Traceback" not in "".join(said)
