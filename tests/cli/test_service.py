"""`innerloop serve` and `innerloop worker`: what they refuse, in one line and with exit code 2."""

from pathlib import Path

import pytest

from innerloop.cli import main as command

VARIABLES = ("TOKEN", "HOST", "PORT", "WORKERS", "STORE", "HOME", "LEASE", "LIBRARY")


@pytest.fixture(autouse=True)
def only_these_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "GROUPS", ("doctor", "serve", "worker"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MONGODB_URL", raising=False)
    for name in VARIABLES:
        monkeypatch.delenv(f"INNERLOOP_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that is refused says."""
    try:
        code = command.main(words)
    except SystemExit as stop:  # the parser's own way out
        code = int(str(stop.code))
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("serve", "--host", "0.0.0.0"),
            "without a token the service listens at loopback only, not at 0.0.0.0",
        ),
        (("serve", "--host", "::"), "set INNERLOOP_TOKEN"),
        (("serve", "--port", "x"), "argument --port: invalid int value: 'x'"),
        (("serve", "--port", "70000"), "there is no port 70000"),
        (("serve", "--workers", "-1"), "--workers is -1; it must be 0 or more"),
        (("serve", "--workers", "many"), "argument --workers: invalid int value: 'many'"),
        (("serve", "--lease", "1"), "--lease is 1; it must be between 3 and 86400 seconds"),
        (("serve", "--lease", "nan"), "--lease is nan"),
        (("worker", "--lease", "inf"), "--lease is inf"),
        (("worker", "--lease", "soon"), "argument --lease: invalid float value: 'soon'"),
        (("serve", "--store", "mysql://host/jobs"), "is no address of a store"),
        (("worker", "--store", "mysql://me:geheim@host/jobs"), "mysql://me:***@host/jobs"),
        (("worker", "--store", "sqlite://"), "names no file"),
        (("serve", "extra"), "unrecognized arguments: extra"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("INNERLOOP_PORT", "http", "argument --port: invalid int value: 'http'"),
        ("INNERLOOP_WORKERS", "1.5", "argument --workers: invalid int value: '1.5'"),
        ("INNERLOOP_LEASE", "long", "argument --lease: invalid float value: 'long'"),
        ("INNERLOOP_HOST", "0.0.0.0", "listens at loopback only"),
        ("INNERLOOP_TOKEN", "short", "too short to be secret"),
        ("INNERLOOP_TOKEN", "ünïcode-0123456789", "what a request cannot carry"),
        ("INNERLOOP_STORE", "nowhere", "'nowhere' is no address of a store"),
        ("MONGODB_URL", "nowhere", "'nowhere' is no address of a store"),
    ],
)
def test_a_wrong_environment_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    said = (
        refused(capsys, "serve", "--port", "0") if variable != "INNERLOOP_PORT" else refused(capsys, "serve")
    )
    assert message in said
    assert variable != "INNERLOOP_TOKEN" or f" {value} " not in said.replace("too short", "")


def test_what_the_service_is_told_wrong_is_no_matter_to_other_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INNERLOOP_PORT", "http")
    monkeypatch.setenv("INNERLOOP_LEASE", "long")
    assert command.main(("doctor", "--json")) == 0
    assert capsys.readouterr().out.startswith("{")


def test_a_home_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(capsys, "serve", "--home", str(tmp_path / "file"), "--port", "0", "--workers", "0")
    assert str(tmp_path / "file") in said
