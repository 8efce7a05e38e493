"""The files of ``deploy/``, read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

Resource = dict[str, Any]


def kustomization(folder: Path) -> Resource:
    """What a folder's kustomization says."""
    found: Resource = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


def resources(folder: Path) -> list[Resource]:
    """The resources of a folder's kustomization, in its order."""
    files = [folder / name for name in kustomization(folder)["resources"]]
    return [resource for file in files for resource in yaml.safe_load_all(file.read_text())]


def find(kind: str, name: str) -> Resource:
    """A resource of the service."""
    found = [r for r in resources(KUBERNETES) if r["kind"] == kind and r["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, lines joined."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parts = [line.partition(" ") for line in joined.splitlines()]
    return [(instruction, arguments.strip()) for instruction, _, arguments in parts]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    last = max(number for number, (instruction, _) in enumerate(dockerfile()) if instruction == "FROM")
    given = " ".join(text for instruction, text in dockerfile()[last:] if instruction == "ENV")
    return dict(re.findall(r'(\w+)="?([^\s"]*)"?', given))


def unit_settings(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit file by name; one may be given several times."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def variables_of(text: str) -> Iterator[str]:
    """Variables that an environment file sets."""
    yield from re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)
