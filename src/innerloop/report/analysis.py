"""Compares the methods of a study: averaged curves, paired tests, sample efficiency, cost.

The task is the unit of replication: the runs of a task are averaged first, and every interval over tasks and
every test pairs two methods task by task. Methods are compared on common ground only, the tasks and budgets
that all of them measured; what that leaves out is said in the notes. Words and pictures are made elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from statistics import fmean

from innerloop.core import stats
from innerloop.core.stats import Interval, PairedTest
from innerloop.report.common_ground import CommonGround, Grid, find_common_ground, ground_notes
from innerloop.report.study import Method, Study

Values = Mapping[tuple[str, int], tuple[float, ...]]
"""Finite values of one method, by task and budget, one a run."""

LEVEL = 0.95
ALPHA = 0.05
EQUAL_COST = 0.1
"""Two costs that differ by at most this share count as equal."""


@dataclass(frozen=True)
class Point:
    """A method at one budget: a mean with its interval."""

    budget: int
    interval: Interval


@dataclass(frozen=True)
class Curve:
    """A method's learning curve over increasing budgets."""

    method: Method
    points: tuple[Point, ...]

    def at(self, budget: int) -> Interval | None:
        """The mean at a budget; None where it was not measured."""
        return next((point.interval for point in self.points if point.budget == budget), None)


@dataclass(frozen=True)
class TaskCurves:
    """Every method's curve on one task, with intervals over runs."""

    task: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Comparison:
    """One method against another, paired over tasks.

    Args:
        challenger: the method in question.
        control: the one it is judged against.
        budgets: averaged inside each task before the pairing.
        challenger_mean: the challenger's mean over tasks.
        control_mean: the control's mean over tasks.
        gain: the mean difference with its t interval, positive where the challenger is better whichever way
            the metric points.
        bootstrap: the same mean with its BCa bootstrap interval.
        better: number of tasks on which the challenger is ahead.
        worse: number of tasks on which it is behind.
        equal: number of tasks without a difference.
        permutation: the test the verdict rests on.
        corrected_p: the permutation test's p-value after Holm's correction over its family.
        t_test: the same differences, taken as normal.
        wilcoxon: the same differences by their ranks.
        effect: Hedges' g_z of the differences.
    """

    challenger: Method
    control: Method
    budgets: tuple[int, ...]
    challenger_mean: float
    control_mean: float
    gain: Interval
    bootstrap: Interval
    better: int
    worse: int
    equal: int
    permutation: PairedTest
    corrected_p: float
    t_test: PairedTest
    wilcoxon: PairedTest
    effect: float


@dataclass(frozen=True)
class Efficiency:
    """How little of a task a method needs.

    Args:
        method: the method.
        budget: the smallest measured budget at which its average reaches the target; None when none does.
        area: its average over the budgets all methods share, each weighted by its width; None without any.
    """

    method: Method
    budget: int | None
    area: float | None


@dataclass(frozen=True)
class Analysis:
    """Everything a report says, as numbers.

    Args:
        study: what was compared.
        tasks: the tasks all methods share.
        averages: curves over these tasks, with intervals over tasks.
        by_task: curves of every task that any method measured.
        overall: comparisons averaged over budgets, one Holm family.
        by_budget: comparisons at each single budget, another Holm family.
        reference: the control that costs and sample efficiency are measured against; None without controls.
        target: the best average of the reference.
        efficiency: one entry a method.
        notes: what a reader must know: the study's notes and what the common ground leaves out.
    """

    study: Study
    tasks: tuple[str, ...]
    averages: tuple[Curve, ...]
    by_task: tuple[TaskCurves, ...]
    overall: tuple[Comparison, ...]
    by_budget: tuple[Comparison, ...]
    reference: Method | None
    target: float | None
    efficiency: tuple[Efficiency, ...]
    notes: tuple[str, ...]


def analyse(study: Study) -> Analysis:
    """Compares the methods of a study on their common ground."""
    grid = {method.key: method.values(study.metric) for method in study.methods}
    ground = find_common_ground(study, grid)
    averages = tuple(_average_curve(method, grid[method.key], ground) for method in study.methods)
    pairs = [pair for pair in _pairs(study) if ground.shared_budgets(*pair)]
    reference = _reference(study, averages)
    best = {curve.method.key: _best(curve, study.higher_is_better) for curve in averages}
    target = best[reference.key] if reference else None
    return Analysis(
        study=study,
        tasks=ground.tasks,
        averages=averages,
        by_task=tuple(
            TaskCurves(task, tuple(_task_curve(method, grid[method.key], task) for method in study.methods))
            for task in study.tasks
        ),
        overall=_corrected(
            [_compare(study, grid, ground, pair, _showing(ground.shared_budgets(*pair))) for pair in pairs]
        ),
        by_budget=_corrected(
            [
                _compare(study, grid, ground, pair, (budget,))
                for pair in pairs
                for budget in ground.shared_budgets(*pair)
            ]
        ),
        reference=reference,
        target=target,
        efficiency=tuple(
            _efficiency(curve, target, ground.shared_budgets(*study.methods), study.higher_is_better)
            for curve in averages
        ),
        notes=(*study.notes, *ground_notes(study, grid, ground), *_draw_notes(study, grid)),
    )


def cost_ratio(method: Method, control: Method, field: str) -> float | None:
    """An entry of a method's ledger as a multiple of a control's.

    Args:
        method: the method.
        control: the control.
        field: the name of a `Ledger` field or property.

    Returns:
        The ratio; None when either amount is unknown or the control's is zero.
    """
    amount, base = getattr(method.ledger, field), getattr(control.ledger, field)
    return amount / base if amount is not None and base else None


def same_cost(ratio: float) -> bool:
    """Whether a ratio of costs counts as equal, within a tenth."""
    return abs(ratio - 1) <= EQUAL_COST


def _average_curve(method: Method, values: Values, ground: CommonGround) -> Curve:
    """The mean over the shared tasks at each budget, runs averaged inside a task."""
    budgets = ground.budgets[method.key] if ground.tasks else ()
    return Curve(
        method,
        tuple(
            Point(budget, stats.mean_interval([fmean(values[task, budget]) for task in ground.tasks], LEVEL))
            for budget in budgets
        ),
    )


def _task_curve(method: Method, values: Values, task: str) -> Curve:
    return Curve(
        method,
        tuple(
            Point(budget, stats.mean_interval(runs, LEVEL))
            for (name, budget), runs in sorted(values.items())
            if name == task
        ),
    )


def _pairs(study: Study) -> list[tuple[Method, Method]]:
    """Each challenger with each control; every two methods where one of these kinds is missing."""
    if study.challengers and study.controls:
        return list(product(study.challengers, study.controls))
    return list(combinations(study.methods, 2))


def _showing(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets at which a method saw something of the task; all of them when none did."""
    return tuple(budget for budget in budgets if budget > 0) or budgets


def _compare(
    study: Study, grid: Grid, ground: CommonGround, pair: tuple[Method, Method], budgets: tuple[int, ...]
) -> Comparison:
    challenger, control = pair
    scores, control_scores = (
        [fmean(fmean(grid[method.key][task, budget]) for budget in budgets) for task in ground.tasks]
        for method in pair
    )
    sign = 1 if study.higher_is_better else -1
    # Scores that differ by rounding alone are a tie, not a tiny win.
    rounding = 1e-12 * max(map(abs, (*scores, *control_scores)))
    gains = [
        0.0 if abs(score - other) <= rounding else sign * (score - other)
        for score, other in zip(scores, control_scores, strict=True)
    ]
    permutation = stats.sign_flip_test(gains)
    return Comparison(
        challenger=challenger,
        control=control,
        budgets=budgets,
        challenger_mean=fmean(scores),
        control_mean=fmean(control_scores),
        gain=stats.mean_interval(gains, LEVEL),
        bootstrap=stats.bootstrap_interval(gains, LEVEL),
        better=sum(gain > 0 for gain in gains),
        worse=sum(gain < 0 for gain in gains),
        equal=sum(gain == 0 for gain in gains),
        permutation=permutation,
        corrected_p=permutation.p_value,
        t_test=stats.paired_t_test(gains),
        wilcoxon=stats.wilcoxon_test(gains),
        effect=stats.effect_size(gains),
    )


def _corrected(family: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with Holm's correction over all of them."""
    corrected = stats.holm([comparison.permutation.p_value for comparison in family])
    return tuple(replace(comparison, corrected_p=p) for comparison, p in zip(family, corrected, strict=True))


def _best(curve: Curve, higher_is_better: bool) -> float | None:
    means = [point.interval.mean for point in curve.points]
    if not means:
        return None
    return max(means) if higher_is_better else min(means)


def _reference(study: Study, averages: Sequence[Curve]) -> Method | None:
    """The strongest control among those that were trained, or among all controls when none was."""
    curves = [curve for curve in averages if curve.method.control and curve.points]
    curves = [curve for curve in curves if curve.method.ledger.trained] or curves
    sign = 1 if study.higher_is_better else -1

    def strength(curve: Curve) -> float:
        return sign * fmean(point.interval.mean for point in curve.points)

    return max(curves, key=strength).method if curves else None


def _efficiency(
    curve: Curve, target: float | None, shared: tuple[int, ...], higher_is_better: bool
) -> Efficiency:
    means = {point.budget: point.interval.mean for point in curve.points}
    reached = (
        stats.first_reaching(tuple(means), tuple(means.values()), target, higher_is_better)
        if target is not None
        else None
    )
    area = stats.area_under_curve(shared, [means[budget] for budget in shared]) if shared else None
    return Efficiency(curve.method, reached, area)


def _draw_notes(study: Study, grid: Grid) -> tuple[str, ...]:
    """What may weaken the pairing: too few runs, unequal runs, unequal seeds."""
    notes = []
    runs = {
        method.label: max((len(values) for values in grid[method.key].values()), default=0)
        for method in study.methods
    }
    if len(set(runs.values())) > 1:
        listed = ", ".join(f"{label} {count}" for label, count in runs.items())
        notes.append(f"Runs per task and budget differ between methods ({listed}).")
    elif set(runs.values()) == {1}:
        notes.append("One run per task and budget: the curves of single tasks have no interval.")
    seeds = {method.label: method.seed for method in study.methods}
    if len(set(seeds.values())) > 1:
        listed = ", ".join(f"{label} {'unknown' if seed is None else seed}" for label, seed in seeds.items())
        notes.append(
            f"Evaluation seeds differ ({listed}): methods may have seen different draws. The pairing over "
            "tasks still holds, the draws add noise to it."
        )
    return tuple(notes)
