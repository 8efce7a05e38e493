"""An estimate of memory as tables for a terminal."""

import psutil  # type: ignore[import-untyped]
import torch
from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from innerloop.llm.estimate import Estimate


def render(estimate: Estimate) -> RenderableType:
    """What a device holds at a meta-step's height, the heights of all phases, and whether it fits here."""
    return Group(_parts(estimate), _phases(estimate), _verdict(estimate))


def _parts(estimate: Estimate) -> Table:
    processes = f", {estimate.world_size} processes" if estimate.world_size > 1 else ""
    table = _table(
        f"{estimate.model}: {estimate.parameters / 1e6:,.1f} M parameters, {estimate.adapted / 1e6:,.1f} M "
        f"adapted; one {estimate.device}{processes}, {estimate.peak.name}"
    )
    table.add_column("memory for")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for part in estimate.peak.parts:
        table.add_row(part.name, decimal(part.size), part.why)
    table.add_section()
    table.add_row(Text("peak", "bold"), Text(decimal(estimate.peak.size), "bold"), "")
    for part in estimate.on_host:
        table.add_row(part.name, decimal(part.size), f"in host memory: {part.why}")
    return table


def _phases(estimate: Estimate) -> Table:
    table = _table(None)
    table.add_column("phase of a meta-step")
    table.add_column("height", justify="right", no_wrap=True)
    for phase in estimate.phases:
        style = "bold" if phase is estimate.peak else ""
        table.add_row(Text(phase.name, style), Text(decimal(phase.size), style))
    return table


def _verdict(estimate: Estimate) -> Text:
    on_gpu = estimate.device == "cuda"
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    if estimate.peak.size <= free:
        return Text(f"It fits: {decimal(free)} are free here.", "green")
    return Text(
        f"It does not fit: {decimal(free)} are free here. Fewer tokens in a pass (data.use_dynamic_bsz, "
        "model.enable_gradient_checkpointing), fewer adapted parameters (model.lora_rank), half precision "
        "(model.dtype) or more processes (model.use_fsdp) need less.",
        "yellow",
    )


def _table(title: str | None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
