"""The report as data: JSON with everything the page says, CSV with one row a method, task and budget."""

import csv
import io
import json
import math
from collections.abc import Iterator
from importlib.metadata import version

from innerloop.core.stats import Interval, PairedTest
from innerloop.report.analysis import LEVEL, Analysis, Comparison, Curve, cost_ratio
from innerloop.report.study import LEDGER_FIELDS, JsonValue, Method
from innerloop.report.verdict import Verdict, outcome_of

FORMAT_VERSION = 1
SOFTWARE_VERSION = version("innerloop")
OVER_TASKS = "(mean over tasks)"
CSV_HEAD = ("method", "label", "control", "task", "budget", "metric", "mean", "low", "high", "count", "over")


def json_text(analysis: Analysis, verdict: Verdict) -> str:
    """The analysis as one JSON object; what is unknown, open or undefined is null."""
    study = analysis.study
    record: dict[str, JsonValue] = {
        "format": FORMAT_VERSION,
        "innerloop": SOFTWARE_VERSION,
        "metric": study.metric,
        "higher_is_better": study.higher_is_better,
        "budget_name": study.budget_name,
        "interval_level": LEVEL,
        "verdict": {
            "outcome": verdict.outcome.value,
            "headline": verdict.headline,
            "evidence": [*verdict.evidence],
            "others": [*verdict.others],
        },
        "notes": [*analysis.notes],
        "tasks": [*analysis.tasks],
        "reference_control": analysis.reference.key if analysis.reference else None,
        "target": _finite(analysis.target),
        "methods": [_method(method, analysis.reference) for method in study.methods],
        "averages": {curve.method.key: _curve(curve) for curve in analysis.averages},
        "by_task": {
            task.task: {curve.method.key: _curve(curve) for curve in task.curves if curve.points}
            for task in analysis.by_task
        },
        "overall": [_comparison(entry, len(analysis.overall)) for entry in analysis.overall],
        "by_budget": [_comparison(entry, len(analysis.by_budget)) for entry in analysis.by_budget],
        "sample_efficiency": [
            {"method": entry.method.key, "budget_to_target": entry.budget, "area": _finite(entry.area)}
            for entry in analysis.efficiency
        ],
    }
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(analysis: Analysis) -> str:
    """Every mean with its interval: over runs for a task, over tasks for the average."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for curve in analysis.averages:
        writer.writerows(_rows(curve, OVER_TASKS, analysis.study.metric, "tasks"))
    for task in analysis.by_task:
        for curve in task.curves:
            writer.writerows(_rows(curve, task.task, analysis.study.metric, "runs"))
    return buffer.getvalue()


def _rows(curve: Curve, task: str, metric: str, over: str) -> Iterator[tuple[str | int | float, ...]]:
    method = curve.method
    for point in curve.points:
        interval = point.interval
        low, high = (interval.low, interval.high) if interval.bounded else ("", "")
        place = (method.key, method.label, int(method.control), task, point.budget, metric)
        yield (*place, interval.mean, low, high, interval.count, over)


def _method(method: Method, reference: Method | None) -> JsonValue:
    return {
        "method": method.key,
        "label": method.label,
        "control": method.control,
        "folder": str(method.folder),
        "ledger": {field: getattr(method.ledger, field) for field in LEDGER_FIELDS},
        "cost_ratio": {
            field: _finite(cost_ratio(method, reference, field) if reference else None)
            for field in LEDGER_FIELDS
        },
        "adaptation": {
            "rule": method.adaptation.rule,
            "learning_rate": method.adaptation.learning_rate,
            "steps": method.adaptation.steps,
            "chosen_on": method.adaptation.chosen_on,
        },
        "seed": method.seed,
        "config": dict(method.config),
        "versions": dict(method.versions),
    }


def _curve(curve: Curve) -> JsonValue:
    return [{"budget": point.budget, **_interval(point.interval)} for point in curve.points]


def _comparison(comparison: Comparison, family: int) -> JsonValue:
    tests = {
        "permutation": comparison.permutation,
        "paired_t": comparison.t_test,
        "wilcoxon": comparison.wilcoxon,
    }
    return {
        "challenger": comparison.challenger.key,
        "control": comparison.control.key,
        "budgets": [*comparison.budgets],
        "outcome": outcome_of(comparison, family).value,
        "challenger_mean": comparison.challenger_mean,
        "control_mean": comparison.control_mean,
        "gain": _interval(comparison.gain),
        "gain_bootstrap": _interval(comparison.bootstrap),
        "corrected_p": comparison.corrected_p,
        "tests": {name: _test(test) for name, test in tests.items()},
        "effect_size": _finite(comparison.effect),
        "better": comparison.better,
        "worse": comparison.worse,
        "equal": comparison.equal,
    }


def _interval(interval: Interval) -> dict[str, JsonValue]:
    return {
        "mean": interval.mean,
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "count": interval.count,
    }


def _test(test: PairedTest) -> JsonValue:
    return {
        "count": test.count,
        "statistic": _finite(test.statistic),
        "p_value": _finite(test.p_value),
        "exact": test.exact,
        "smallest_p": test.smallest_p,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
