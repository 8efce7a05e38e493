"""The report as one HTML page that asks nothing of the network: style and pictures stand in it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from innerloop.report import figures, tables
from innerloop.report.analysis import Analysis, cost_ratio
from innerloop.report.export import SOFTWARE_VERSION
from innerloop.report.formatting import NBSP, MetricFormat, bare_p, budgets, plural, ratio
from innerloop.report.template import page_environment
from innerloop.report.verdict import Verdict

SHOWN_COMPARISONS = 6
WORD_JOINER = "\N{WORD JOINER}"


@dataclass(frozen=True)
class Tile:
    """One key number with what it is above and what it means below."""

    title: str
    number: str
    detail: str


def html_text(analysis: Analysis, verdict: Verdict, write: MetricFormat, names: Sequence[str]) -> str:
    """Renders the page.

    Args:
        analysis: the numbers.
        verdict: the words.
        write: how the metric is written.
        names: of the data files beside the page.

    Returns:
        The whole document.
    """
    environment = page_environment()
    environment.filters["pretty"] = lambda config: json.dumps(config, indent=2, ensure_ascii=False)
    environment.filters["unbroken"] = lambda text: text.replace("-", f"-{WORD_JOINER}")
    study = analysis.study
    return environment.get_template("report.html").render(
        analysis=analysis,
        study=study,
        verdict=verdict,
        write=write,
        metric=study.metric.replace("_", " "),
        unit=write.unit or "its own units",
        shown=SHOWN_COMPARISONS,
        method_count=plural(len(study.methods), "method"),
        task_total=plural(len(study.tasks), "task"),
        task_count=plural(len(analysis.tasks), "task"),
        target="" if analysis.target is None else write.value(analysis.target),
        test_detail=_test_detail(analysis),
        styles=figures.method_styles(study),
        tiles=_tiles(analysis, verdict, write),
        curves=figures.learning_curves(analysis, write),
        gain_figure=figures.gains(analysis, write),
        task_panels=figures.task_panels(analysis, write),
        training_panels=figures.training_panels(study),
        trained=[method for method in study.methods if method.training],
        scores=tables.scores(analysis, write),
        task_scores=tables.task_scores(analysis, write),
        efficiency=tables.efficiency(analysis, write),
        overall=tables.tests(analysis.overall, write, study.budget_name),
        by_budget=tables.tests(analysis.by_budget, write, study.budget_name),
        ledger=tables.ledger(analysis),
        evaluation_cost=tables.evaluation_cost(analysis),
        other_metrics=tables.other_metrics(analysis),
        adaptation=tables.adaptation(study),
        provenance=tables.provenance(study),
        differing=tables.differing_settings(study),
        names=names,
        version=SOFTWARE_VERSION,
    )


def _test_detail(analysis: Analysis) -> str:
    if not analysis.overall:
        return ""
    test = analysis.overall[0].permutation
    if not test.exact:
        return f" (from 100{NBSP}000 random sign patterns)"
    patterns = f"{2**test.count:,}".replace(",", NBSP)
    return f" (exact, over all {patterns} sign patterns)"


def _tiles(analysis: Analysis, verdict: Verdict, write: MetricFormat) -> list[Tile]:
    """The key numbers of the comparison in the headline."""
    main = verdict.comparison
    if main is None:
        return []
    name = analysis.study.budget_name
    unit = f" {write.unit}".rstrip()
    span = write.span(main.gain, signed=True)
    tiles = [
        Tile(
            f"Mean gain over {main.control.label}",
            f"{write.change(main.gain.mean)}{unit}",
            f"95{NBSP}%: {span}" if main.gain.bounded else "one task, no interval",
        ),
        Tile(
            "Corrected p-value",
            bare_p(main.corrected_p),
            f"paired over {plural(main.gain.count, 'task')}, "
            f"Holm over {plural(len(analysis.overall), 'pair')}",
        ),
    ]
    passes = cost_ratio(main.challenger, main.control, "equivalent_passes")
    tokens = cost_ratio(main.challenger, main.control, "tokens")
    if passes is not None:
        detail = f"gradient passes of training; {ratio(tokens)} the tokens" if tokens is not None else ""
        tiles.append(Tile("Cost", ratio(passes), detail or "gradient passes of training"))
    if analysis.target is not None and main.control is analysis.reference:
        needed = {entry.method.key: entry.budget for entry in analysis.efficiency}
        reached, base = needed[main.challenger.key], needed[main.control.key]
        number = "not reached" if reached is None else budgets((reached,), name)
        tiles.append(Tile(f"To reach {write.value(analysis.target)}", number, f"the control needs {base}"))
    return tiles
