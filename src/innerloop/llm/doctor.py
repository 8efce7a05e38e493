"""What this machine offers innerloop: releases, devices, back ends, space, and which optional parts it lacks.

It only looks; it changes nothing and loads no model.
"""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from packaging.requirements import Requirement
from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from innerloop.cache import cache_folder
from innerloop.core.devices import best_device
from innerloop.llm import smollm
from innerloop.llm.devices import ATTENTION, DTYPES, attention_backends, supported_dtypes
from innerloop.llm.versions import installed_version, library_versions

_FOR_DEVELOPERS = frozenset({"all", "dev", "docs"})


@dataclass(frozen=True)
class DeviceReport:
    """One device: its name for ``trainer.device``, what it is, and its memory in bytes."""

    name: str
    description: str
    dtypes: tuple[str, ...]
    attention: tuple[str, ...]
    memory_free: int
    memory_total: int


@dataclass(frozen=True)
class DiskReport:
    """The disk under a folder that innerloop writes to, in bytes."""

    folder: str
    free: int
    total: int
    writable: bool


@dataclass(frozen=True)
class OptionalPart:
    """An optional library: its installed release or none, and the command that brings it."""

    extra: str
    library: str
    version: str | None
    satisfied: bool
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """All that ``innerloop doctor`` reports."""

    system: str
    versions: Mapping[str, str]
    default_device: str
    devices: tuple[DeviceReport, ...]
    distributed: Mapping[str, bool]
    processes: str
    disks: tuple[DiskReport, ...]
    embedded_model: str
    optional: tuple[OptionalPart, ...]


def diagnose() -> Diagnosis:
    """Looks at this machine."""
    return Diagnosis(
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        versions=library_versions(),
        default_device=best_device().type,
        devices=tuple(_devices()),
        distributed=_distributed(),
        processes=_processes(),
        disks=tuple(_disk(folder) for folder in (Path.cwd(), cache_folder())),
        embedded_model=_embedded_model(),
        optional=tuple(_optional_parts()),
    )


def _devices() -> Iterable[DeviceReport]:
    memory = psutil.virtual_memory()
    cores = f"{_usable_cores()} cores, {torch.backends.cpu.get_cpu_capability()}"
    yield _device(torch.device("cpu"), cores, memory.available, memory.total)
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        major, minor = torch.cuda.get_device_capability(index)
        about = f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}"
        yield _device(torch.device("cuda", index), about, free, total)
    if torch.backends.mps.is_available():
        yield _device(torch.device("mps"), "Apple GPU, shares the memory", memory.available, memory.total)


def _device(device: torch.device, description: str, free: int, total: int) -> DeviceReport:
    return DeviceReport(
        name=str(device),
        description=description,
        dtypes=supported_dtypes(device),
        attention=attention_backends(device),
        memory_free=free,
        memory_total=total,
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _distributed() -> dict[str, bool]:
    present = torch.distributed.is_available()
    return {
        "gloo": present and torch.distributed.is_gloo_available(),
        "nccl": present and torch.distributed.is_nccl_available(),
        "FSDP2": present and importlib.util.find_spec("torch.distributed.fsdp._fully_shard") is not None,
    }


def _processes() -> str:
    """How several processes can train here."""
    found, gpus = _distributed(), torch.cuda.device_count()
    if found["nccl"] and gpus > 1:
        return f"torchrun --nproc_per_node {gpus}: each with a GPU of its own"
    if found["gloo"]:
        return "torchrun with trainer.device=cpu; fewer than two GPUs are here"
    return "none: this PyTorch was built without them"


def _disk(folder: Path) -> DiskReport:
    present = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(present)
    return DiskReport(str(folder), usage.free, usage.total, os.access(present, os.W_OK))


def _embedded_model() -> str:
    if smollm.is_cached():
        return f"{smollm.ALIAS} is ready"
    if smollm.installed_gguf() is not None:
        return f"{smollm.ALIAS} is installed and will be converted at first use"
    return f"{smollm.ALIAS} is not here; get it with: innerloop models get {smollm.ALIAS}"


def _optional_parts() -> Iterable[OptionalPart]:
    """Reads the extras out of the package's own metadata, so that the list cannot fall behind."""
    about = metadata("innerloop")
    requirements = [Requirement(line) for line in about.get_all("Requires-Dist") or ()]
    for extra in about.get_all("Provides-Extra") or ():
        if extra in _FOR_DEVELOPERS:
            continue
        for requirement in requirements:
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
                continue
            version = installed_version(requirement.name)
            satisfied = version is not None and requirement.specifier.contains(version, prereleases=True)
            install = f"pip install 'innerloop[{extra}]'"
            yield OptionalPart(extra, requirement.name, version, satisfied, install)


def render(diagnosis: Diagnosis) -> RenderableType:
    """The diagnosis as tables for a terminal."""
    return Group(
        _facts(diagnosis),
        _device_table(diagnosis),
        _disk_table(diagnosis.disks),
        _optional_table(diagnosis.optional),
    )


def _facts(diagnosis: Diagnosis) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    releases = ", ".join(f"{name} {release}" for name, release in diagnosis.versions.items())
    table.add_row("system", Text(diagnosis.system))
    table.add_row("versions", Text(releases))
    table.add_row("embedded model", Text(diagnosis.embedded_model))
    table.add_row("distributed", Text(", ").join(_present(diagnosis.distributed.items())))
    table.add_row("several processes", Text(diagnosis.processes))
    table.add_row("default device", Text(diagnosis.default_device))
    return table


def _device_table(diagnosis: Diagnosis) -> Table:
    table = _table("device", "dtypes", "attention", "free memory")
    for column in table.columns[1:]:
        column.no_wrap = True
    for device in diagnosis.devices:
        table.add_row(
            Text.assemble((device.name, "bold"), "\n", device.description),
            Text("\n").join(_present((name, name in device.dtypes) for name in DTYPES)),
            Text("\n").join(_present((name, name in device.attention) for name in ATTENTION)),
            _of(device.memory_free, device.memory_total),
        )
    return table


def _disk_table(disks: Iterable[DiskReport]) -> Table:
    table = _table("disk under", "writable", "free space")
    for disk in disks:
        writable = Text("yes", "green") if disk.writable else Text("no", "red")
        table.add_row(Text(disk.folder), writable, _of(disk.free, disk.total))
    return table


def _optional_table(parts: Iterable[OptionalPart]) -> Table:
    table = _table("optional part", "library", "installed", "to install it")
    for part in parts:
        installed = Text(part.version or "no", "green" if part.satisfied else "yellow")
        table.add_row(part.extra, part.library, installed, Text("" if part.satisfied else part.install))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _present(names: Iterable[tuple[str, bool]]) -> Iterator[Text]:
    return (Text(name, "green") if present else Text(f"{name} (absent)", "dim") for name, present in names)


def _of(free: int, total: int) -> str:
    return f"{decimal(free)} of {decimal(total)}"
