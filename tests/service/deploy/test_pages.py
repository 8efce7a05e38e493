"""What the pages say of the service in tables is what the code does."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.cli.main import build_parser
from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.states import Action, State, asked
from innerloop.service.kinds import KINDS
from innerloop.service.stores.opening import open_store
from innerloop.service.work.process import SECRETS
from service.deploy.files import (
    DEPLOY,
    KUBERNETES,
    ROOT,
    find,
    image_environment,
    unit_settings,
    variables_of,
)

SERVICE = (ROOT / "docs/service.md").read_text()
DEPLOYMENT = (ROOT / "docs/deployment.md").read_text()


def table(page: str, heading: str) -> list[dict[str, str]]:
    """The first table under a heading, its rows by column."""
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def code(text: str) -> str:
    """What stands between backticks."""
    return text.strip("`")


# States


def test_the_states_lead_where_the_table_says() -> None:
    rows = {code(row["state"]): row for row in table(SERVICE, "States")}
    assert [*rows] == [*State]
    for state in State:
        row = rows[state]
        assert row["held by a worker"] == ("yes" if state.held else "no"), state
        for action in Action:
            assert code(row[action]) == (asked(action, state) or ""), (state, action)


def test_every_kind_is_in_the_table_and_submitted_both_ways() -> None:
    assert [code(row["kind"]) for row in table(SERVICE, "The kinds of jobs")] == [*KINDS]
    for kind in KINDS:
        assert f"bash submit.sh {kind} " in SERVICE
        assert re.search(rf'client\.submit\(\s*"{kind}"', SERVICE)


def test_every_refusal_is_in_the_table(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.sqlite")
    documented = create_app(store, tmp_path, ServiceSettings(token="0" * 32)).openapi()["paths"]
    store.close()
    refusals = {
        status
        for path in documented.values()
        for operation in path.values()
        for status in operation["responses"]
        if status >= "400"
    }
    assert {row["status"] for row in table(SERVICE, "What is refused")} == refusals


# Variables


def read_in(tree: ast.Module) -> Iterator[str]:
    """Variables of the environment that a module reads by name."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            asked_for: ast.expr = node.slice
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in READS:
            asked_for = node.args[0]
        else:
            continue
        if isinstance(asked_for, ast.Constant):
            yield str(asked_for.value)
        elif isinstance(asked_for, ast.Name) and asked_for.id in constants:
            yield str(constants[asked_for.id])


READS = ("os.environ.get", "os.getenv", "_set")
"""Calls that read a variable; the last is that of ``innerloop serve``."""

ELSEWHERE = {
    "LOCALAPPDATA",
    "XDG_CACHE_HOME",
    "INNERLOOP_DATA",
    "RAY_USAGE_STATS_ENABLED",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
}
"""Variables of other systems, other parts, or that are only set; the service's page need not name them."""

OF_LIBRARIES = {
    "PGPASSWORD",
    "PGPASSFILE",
    "RAY_ADDRESS",
    "WANDB_BASE_URL",
    "OMP_NUM_THREADS",
    "HF_HUB_OFFLINE",
}
"""Variables in the table that a library reads."""


def listed() -> dict[str, dict[str, str]]:
    return {code(row["variable"]): row for row in table(DEPLOYMENT, "Environment variables")}


def test_every_variable_that_is_read_is_listed_and_no_other() -> None:
    read = {
        name for file in sorted((ROOT / "src").rglob("*.py")) for name in read_in(ast.parse(file.read_text()))
    }
    assert "INNERLOOP_TOKEN" in read
    assert read - ELSEWHERE == listed().keys() - OF_LIBRARIES


@pytest.mark.parametrize("variable", sorted(OF_LIBRARIES))
def test_a_library_s_variable_is_still_listed(variable: str) -> None:
    assert variable in listed()


def test_what_is_secret_is_marked_so() -> None:
    marked = {name for name, row in listed().items() if row["secret"] == "yes"}
    assert marked == {*SECRETS}


def test_the_defaults_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in listed():
        monkeypatch.delenv(name, raising=False)
    options: argparse.Namespace = build_parser().parse_args(["serve"])
    for variable, row in listed().items():
        option = variable.removeprefix("INNERLOOP_").lower()
        if variable.startswith("INNERLOOP_") and option in ("host", "port", "workers", "lease", "home"):
            assert code(row["default"]) == f"{getattr(options, option)}".removesuffix(".0"), variable


def test_the_files_set_variables_that_there_are() -> None:
    units = [unit_settings(unit)["Environment"] for unit in sorted((DEPLOY / "systemd").glob("*.service"))]
    in_units = {pair.split("=")[0] for lines in units for line in lines for pair in line.split()}
    secret = (KUBERNETES / "secret.example.yaml").read_text()
    given = {
        *image_environment(),
        *in_units,
        *variables_of((DEPLOY / "systemd/innerloop.env").read_text()),
        *find("ConfigMap", "innerloop")["data"],
        *re.findall(r"^  ([A-Z_]+):", secret, re.MULTILINE),
    }
    ours = {name for name in given if name.startswith(("INNERLOOP_", "MONGODB_", "WANDB_"))}
    assert "INNERLOOP_TOKEN" in ours
    assert ours <= listed().keys()
