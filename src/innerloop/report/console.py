"""The report's table of scores in a terminal."""

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from innerloop.core.stats import Interval
from innerloop.report.analysis import Analysis, analyse
from innerloop.report.formatting import UNKNOWN, MetricFormat, bare_p, metric_format, plural
from innerloop.report.study import Method, Study
from innerloop.report.tables import best_methods
from innerloop.report.verdict import judge


def summary_table(study: Study) -> Table:
    """The averages with their intervals, methods by budgets, and each method's gain over the control."""
    return _table(analyse(study), metric_format(study))


def print_table(study: Study, console: Console | None = None) -> None:
    """Prints the summary table and under it the verdict.

    Args:
        study: what to summarise.
        console: where to; by default the terminal.
    """
    console = console or Console()
    analysis, write = analyse(study), metric_format(study)
    verdict = judge(analysis, write)
    console.print(_table(analysis, write))
    console.print(Text(verdict.headline, style="bold"))
    for sentence in verdict.evidence:
        console.print(Text(sentence))


def _table(analysis: Analysis, write: MetricFormat) -> Table:
    study = analysis.study
    unit = " in %" if write.percent else ""
    drawn = Table(
        title=f"{study.metric.replace('_', ' ')}{unit} by {study.budget_name}",
        caption=f"mean over {plural(len(analysis.tasks), 'task')}, ± 95 % interval; p corrected",
        caption_justify="left",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    measured = sorted({point.budget for curve in analysis.averages for point in curve.points})
    drawn.add_column("method")
    for budget in measured:
        drawn.add_column(str(budget), justify="right", no_wrap=True)
    if analysis.reference is not None:
        drawn.add_column(f"gain over {analysis.reference.label}", justify="right")
        drawn.add_column("p", justify="right", no_wrap=True)
    leaders = {
        budget: best_methods(
            {curve.method.key: curve.at(budget) for curve in analysis.averages}, study.higher_is_better, write
        )
        for budget in measured
    }
    for curve in analysis.averages:
        method = curve.method
        cells = [_cell(curve.at(budget), write.number, method.key in leaders[budget]) for budget in measured]
        if analysis.reference is not None:
            cells += _gain(method, analysis, write)
        drawn.add_row(Text(method.label), *cells)
    return drawn


def _cell(interval: Interval | None, write: Callable[[float], str], best: bool = False) -> Text:
    if interval is None:
        return Text(UNKNOWN)
    text = Text(write(interval.mean), style="bold" if best else "")
    if interval.bounded:
        text.append(f"\n±{write(interval.half_width).lstrip('+')}", style="not bold dim")
    return text


def _gain(method: Method, analysis: Analysis, write: MetricFormat) -> list[Text]:
    for comparison in analysis.overall:
        if comparison.challenger is method and comparison.control is analysis.reference:
            return [_cell(comparison.gain, write.change), Text(bare_p(comparison.corrected_p))]
    return [Text(""), Text("")]
