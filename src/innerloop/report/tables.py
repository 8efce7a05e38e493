"""The report's tables as plain text cells; the page and the terminal each draw them their own way."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from innerloop.core.stats import Interval
from innerloop.report.analysis import Analysis, Comparison, cost_ratio
from innerloop.report.common_ground import Grid
from innerloop.report.formatting import (
    UNKNOWN,
    MetricFormat,
    bare_p,
    budgets,
    count,
    duration,
    plural,
    ratio,
    size,
)
from innerloop.report.study import Cell, JsonValue, Method, Study


@dataclass(frozen=True)
class Entry:
    """One cell: its text, a smaller line under it, and whether it is the best of its column."""

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row: what it is about, the method whose mark stands before it (None for none), and its cells."""

    label: str
    method: Method | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """Headings, the first of them over the row labels, and rows."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]


def scores(analysis: Analysis, write: MetricFormat) -> Table:
    """Averages over tasks with their intervals: methods by budgets."""
    measured = sorted({point.budget for curve in analysis.averages for point in curve.points})
    columns = [{c.method.key: c.at(budget) for c in analysis.averages} for budget in measured]
    best = [best_methods(column, analysis.study.higher_is_better, write) for column in columns]
    rows = []
    for curve in analysis.averages:
        entries = []
        for column, leaders in zip(columns, best, strict=True):
            interval = column[curve.method.key]
            if interval is None:
                entries.append(Entry(UNKNOWN))
            else:
                span = write.span(interval) if interval.bounded else ""
                entries.append(Entry(write.number(interval.mean), span, curve.method.key in leaders))
        rows.append(Row(curve.method.label, curve.method, tuple(entries)))
    name = analysis.study.budget_name
    return Table(("Method", *(budgets((budget,), name) for budget in measured)), tuple(rows))


def task_scores(analysis: Analysis, write: MetricFormat) -> Table:
    """Means over runs at every task and budget: one row a task and budget, one column a method."""
    study = analysis.study
    rows = []
    for task in analysis.by_task:
        for budget in sorted({point.budget for curve in task.curves for point in curve.points}):
            column = {curve.method.key: curve.at(budget) for curve in task.curves}
            leaders = best_methods(column, study.higher_is_better, write)
            entries = []
            for method in study.methods:
                interval = column[method.key]
                if interval is None:
                    entries.append(Entry(UNKNOWN))
                else:
                    entries.append(Entry(write.number(interval.mean), best=method.key in leaders))
            rows.append(Row(task.task, None, (Entry(str(budget)), *entries)))
    return Table(("Task", study.budget_name, *(method.label for method in study.methods)), tuple(rows))


def efficiency(analysis: Analysis, write: MetricFormat) -> Table:
    """What each method needs to reach the reference control's best average."""
    name = analysis.study.budget_name
    needed = {entry.method.key: entry.budget for entry in analysis.efficiency}
    base = needed[analysis.reference.key] if analysis.reference else None
    rows = []
    for entry in analysis.efficiency:
        if analysis.target is None:
            reached, share = Entry(UNKNOWN), Entry(UNKNOWN)
        elif entry.budget is None:
            reached, share = Entry("not reached"), Entry(UNKNOWN)
        else:
            reached = Entry(str(entry.budget))
            share = Entry(ratio(entry.budget / base) if base else UNKNOWN)
        area = Entry(UNKNOWN if entry.area is None else write.number(entry.area))
        rows.append(Row(entry.method.label, entry.method, (reached, share, area)))
    target = "the target" if analysis.target is None else write.value(analysis.target)
    return Table(
        ("Method", f"{name} to reach {target}", "relative to the control", "area under the curve"),
        tuple(rows),
    )


def tests(family: Sequence[Comparison], write: MetricFormat, budget_name: str) -> Table:
    """Paired tests of one family."""
    rows = [
        Row(
            f"{comparison.challenger.label} − {comparison.control.label}",
            comparison.challenger,
            (
                Entry(", ".join(map(str, comparison.budgets))),
                Entry(write.change(comparison.gain.mean), write.span(comparison.gain, signed=True)),
                Entry(bare_p(comparison.corrected_p), f"raw {bare_p(comparison.permutation.p_value)}"),
                Entry(bare_p(comparison.t_test.p_value)),
                Entry(bare_p(comparison.wilcoxon.p_value)),
                Entry(write_effect(comparison.effect)),
                Entry(f"{comparison.better} / {comparison.equal} / {comparison.worse}"),
            ),
        )
        for comparison in family
    ]
    head = ("Pair", budget_name, "gain", "p, corrected", "p, paired t", "p, Wilcoxon", "effect g")
    return Table((*head, "tasks better / equal / worse"), tuple(rows))


def write_effect(effect: float) -> str:
    """A standardised effect to two digits; a dash where it is undefined."""
    return UNKNOWN if effect != effect else MetricFormat(percent=False, decimals=2).change(effect)


LEDGER_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("gradient_passes", "gradient passes", count),
    ("hessian_products", "Hessian products", count),
    ("forward_passes", "forward passes", count),
    ("tokens", "tokens", count),
    ("seconds", "time", duration),
    ("peak_memory_bytes", "peak memory", size),
    ("trained_parameters", "parameters trained", count),
    ("checkpoint_bytes", "checkpoint", size),
)


def ledger(analysis: Analysis) -> Table:
    """What training cost, with the ratio to the reference control under each amount.

    An amount that no method spent, or that none recorded, has no column.
    """
    methods = analysis.study.methods
    spent = [column for column in LEDGER_COLUMNS if any(getattr(m.ledger, column[0]) for m in methods)]
    rows = []
    for method in methods:
        entries = []
        for field, _, write in spent:
            share = cost_ratio(method, analysis.reference, field) if analysis.reference else None
            entries.append(
                Entry(write(getattr(method.ledger, field)), ratio(share) if share is not None else "")
            )
        rows.append(Row(method.label, method, tuple(entries)))
    return Table(("Method", *(heading for _, heading, _ in spent)), tuple(rows))


def evaluation_cost(analysis: Analysis) -> Table:
    """What it cost to adapt to one task once and measure it, at each method's largest budget."""
    rows = []
    for method in analysis.study.methods:
        largest = method.budgets[-1]
        cells = [cell for cell in method.cells if cell.budget == largest]
        rows.append(
            Row(
                method.label,
                method,
                (
                    Entry(str(largest)),
                    Entry(count(_mean(cells, "gradient_passes"))),
                    Entry(count(_mean(cells, "tokens"))),
                    Entry(duration(_mean(cells, "seconds"))),
                    Entry(count(_mean(cells, "rows"))),
                ),
            )
        )
    name = analysis.study.budget_name
    return Table(("Method", name, "gradient passes", "tokens", "time", "test rows"), tuple(rows))


def other_metrics(analysis: Analysis) -> Table | None:
    """Means over the shared tasks of everything else measured, at the largest budget all methods share."""
    study = analysis.study
    shared = set.intersection(*({point.budget for point in c.points} for c in analysis.averages))
    names = sorted(
        {name for m in study.methods for cell in m.cells for name in cell.metrics} - {study.metric}
    )
    if not shared or not names:
        return None
    budget = max(shared)
    values: dict[str, Grid] = {name: {m.key: m.values(name) for m in study.methods} for name in names}
    rows = []
    for method in study.methods:
        entries = []
        for name in names:
            found = values[name][method.key]
            runs = [found[task, budget] for task in analysis.tasks if (task, budget) in found]
            whole = len(runs) == len(analysis.tasks)
            entries.append(Entry(f"{fmean(map(fmean, runs)):.4g}" if whole else UNKNOWN))
        rows.append(Row(method.label, method, tuple(entries)))
    heads = (name.replace("_", " ") for name in names)
    return Table((f"Method, at {budgets((budget,), study.budget_name)}", *heads), tuple(rows))


def adaptation(study: Study) -> Table:
    """How each method adapts, and on what its settings were chosen."""
    rows = tuple(
        Row(
            method.label,
            method,
            (
                Entry(method.adaptation.rule or UNKNOWN),
                Entry(short_json(method.adaptation.learning_rate)),
                Entry(short_json(method.adaptation.steps)),
                Entry(method.adaptation.chosen_on or "not recorded"),
            ),
        )
        for method in study.methods
    )
    return Table(("Method", "inner rule", "learning rate", "steps", "chosen on"), rows)


def provenance(study: Study) -> Table:
    """Seeds, amounts of data and the folder of each method, then versions, one column a package."""
    packages = list(dict.fromkeys(package for method in study.methods for package in method.versions))
    rows = []
    for method in study.methods:
        runs = len({cell.run for cell in method.cells})
        entries = (
            Entry(UNKNOWN if method.seed is None else str(method.seed)),
            Entry(f"{plural(len(method.tasks), 'task')}, {plural(runs, 'run')}, {len(method.cells)} results"),
            *(Entry(method.versions.get(package, UNKNOWN)) for package in packages),
            Entry(str(method.folder)),
        )
        rows.append(Row(method.label, method, entries))
    return Table(("Method", "seed", "measured", *packages, "folder"), tuple(rows))


def differing_settings(study: Study) -> Table | None:
    """The settings that are not the same in every method's configuration; None when all agree."""
    flat = {method.key: dict(flattened(method.config)) for method in study.methods}
    keys = list(dict.fromkeys(key for settings in flat.values() for key in settings))
    rows = tuple(
        Row(key, None, tuple(Entry(shown) for shown in written))
        for key in keys
        if len(set(written := [_setting(flat[method.key], key) for method in study.methods])) > 1
    )
    return Table(("Setting", *(method.label for method in study.methods)), rows) if rows else None


def best_methods(
    column: Mapping[str, Interval | None], higher_is_better: bool, write: MetricFormat
) -> set[str]:
    """The methods that lead a column, those written alike among them; none in a column of one."""
    means = {key: interval.mean for key, interval in column.items() if interval is not None}
    if len(means) < 2:
        return set()
    leader = max(means.values()) if higher_is_better else min(means.values())
    return {key for key, mean in means.items() if write.number(mean) == write.number(leader)}


def flattened(config: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """The leaves of a nested configuration under dotted names."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def short_json(value: JsonValue) -> str:
    """A setting in one short line; a table of rates is told by its size."""
    if value is None:
        return UNKNOWN
    if isinstance(value, dict):
        return f"learned, {plural(len(value), 'tensor')}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _setting(settings: dict[str, JsonValue], key: str) -> str:
    return short_json(settings[key]) if key in settings else "(none)"


def _mean(cells: Sequence[Cell], field: str) -> float | None:
    amounts = [amount for cell in cells if (amount := getattr(cell, field)) is not None]
    return fmean(amounts) if amounts else None
