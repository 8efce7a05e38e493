"""The findings in plain words. A null result is stated as plainly as a win, a loss as plainly as either."""

from dataclasses import dataclass
from enum import StrEnum

from innerloop.report.analysis import ALPHA, Analysis, Comparison, cost_ratio, same_cost
from innerloop.report.formatting import NBSP, MetricFormat, budgets, p_value, plural, ratio
from innerloop.report.study import Method, Study


class Outcome(StrEnum):
    """What a comparison allows to be said."""

    WIN = "win"
    LOSS = "loss"
    NULL = "null"
    OPEN = "open"


@dataclass(frozen=True)
class Verdict:
    """The report's first words.

    Args:
        outcome: of the comparison in the headline.
        headline: one sentence.
        evidence: the sentences under it: the numbers, the cost, what the result does not show.
        others: one sentence for each other comparison, those of the headline's challenger first.
        comparison: the one in the headline; None when nothing could be compared.
    """

    outcome: Outcome
    headline: str
    evidence: tuple[str, ...]
    others: tuple[str, ...]
    comparison: Comparison | None


def outcome_of(comparison: Comparison, family: int) -> Outcome:
    """Judges one comparison by its corrected p-value.

    Args:
        comparison: the comparison.
        family: how many comparisons were corrected together.

    Returns:
        Win or loss below the significance level, null above it, and open where so few tasks were measured
        that no result whatever could have come below it.
    """
    if comparison.corrected_p <= ALPHA:
        return Outcome.WIN if comparison.gain.mean > 0 else Outcome.LOSS
    if comparison.gain.mean != 0 and comparison.permutation.smallest_p * family > ALPHA:
        return Outcome.OPEN
    return Outcome.NULL


def judge(analysis: Analysis, write: MetricFormat) -> Verdict:
    """Puts the findings of an analysis into words."""
    if not analysis.overall:
        return Verdict(Outcome.OPEN, _nothing_compared(analysis), (), (), None)
    main = _main_comparison(analysis)
    family = len(analysis.overall)
    outcome = outcome_of(main, family)
    cost = _cost(main.challenger, main.control)
    evidence = [_numbers(main, analysis.study, write), *_limits(main, outcome, family, write)]
    if not (analysis.study.controls and analysis.study.challengers):
        evidence.append(_one_sided(analysis.study))
    elif not cost.equal:
        evidence.append(cost.sentence)
    others = [
        f"{_headline(other, outcome_of(other, family), _cost(other.challenger, other.control).phrase)}: "
        f"{_short_numbers(other, write)}"
        for other in sorted(analysis.overall, key=lambda c: c.challenger is not main.challenger)
        if other is not main
    ]
    headline = _headline(main, outcome, cost.phrase)
    if outcome in (Outcome.WIN, Outcome.LOSS):
        headline += f", by {write.amount(main.gain.mean)}"
    return Verdict(outcome, f"{headline}.", tuple(evidence), tuple(others), main)


@dataclass(frozen=True)
class _Cost:
    """How a challenger's training cost compares: inside a headline, and as a sentence of its own."""

    equal: bool
    phrase: str
    sentence: str


def _cost(challenger: Method, control: Method) -> _Cost:
    passes = cost_ratio(challenger, control, "equivalent_passes")
    tokens = cost_ratio(challenger, control, "tokens")
    known = [(r, name) for r, name in ((passes, "gradient passes"), (tokens, "tokens")) if r is not None]
    if control.ledger.gradient_passes == 0:
        if challenger.ledger.trained:
            return _Cost(False, "", f"The cost is not equal: {control.label} was not trained at all.")
        return _Cost(True, "", "")
    if not known:
        return _Cost(
            False,
            "",
            "Whether the cost was equal is not known: the ledgers do not record what training cost.",
        )
    if all(same_cost(r) for r, _ in known):
        return _Cost(True, "at equal cost", "")
    listed = " and ".join(f"{ratio(r)} the {name}" for r, name in known)
    more, less = (
        any(r > 1 and not same_cost(r) for r, _ in known),
        any(r < 1 and not same_cost(r) for r, _ in known),
    )
    phrase = "at a different cost" if more and less else "at a higher cost" if more else "at a lower cost"
    return _Cost(
        False, phrase, f"The cost is not equal: {challenger.label} used {listed} of {control.label}."
    )


def _main_comparison(analysis: Analysis) -> Comparison:
    """The strongest challenger against the reference control; without one, the largest difference."""
    against_reference = [c for c in analysis.overall if c.control is analysis.reference]
    sign = 1 if analysis.study.higher_is_better else -1
    if against_reference:
        return max(against_reference, key=lambda c: sign * c.challenger_mean)
    return max(analysis.overall, key=lambda c: abs(c.gain.mean))


def _headline(comparison: Comparison, outcome: Outcome, cost: str) -> str:
    challenger, control = comparison.challenger.label, comparison.control.label
    tail = f" {cost}" if cost else ""
    if outcome is Outcome.WIN:
        return f"{challenger} beats {control}{tail}"
    if outcome is Outcome.LOSS:
        return f"{challenger} loses to {control}{tail}"
    if outcome is Outcome.NULL:
        return f"No difference found between {challenger} and {control}{tail}"
    where = "ahead of" if comparison.gain.mean > 0 else "behind"
    tasks = plural(comparison.gain.count, "task")
    return f"{challenger} is {where} {control}{tail}, but {tasks} cannot settle it"


def _numbers(comparison: Comparison, study: Study, write: MetricFormat) -> str:
    interval = (
        f" (95{NBSP}% interval {write.span(comparison.gain, signed=True)}; "
        f"corrected {p_value(comparison.corrected_p)})"
        if comparison.gain.bounded
        else ""
    )
    return (
        f"{_spoken(study.metric)} {write.value(comparison.challenger_mean)} against "
        f"{write.value(comparison.control_mean)}: {_gain(comparison, write)}{interval}, "
        f"{_scope(comparison, study)}. {_tally(comparison)}"
    ).rstrip()


def _short_numbers(comparison: Comparison, write: MetricFormat) -> str:
    text = f"{write.value(comparison.challenger_mean)} against {write.value(comparison.control_mean)}"
    if comparison.gain.bounded:
        text += f", {write.change(comparison.gain.mean)} [{write.span(comparison.gain, signed=True)}]"
    return f"{text}, corrected {p_value(comparison.corrected_p)}."


def _gain(comparison: Comparison, write: MetricFormat) -> str:
    mean = comparison.gain.mean
    if mean == 0:
        return "no difference"
    return f"{write.amount(mean)} {'better' if mean > 0 else 'worse'}"


def _scope(comparison: Comparison, study: Study) -> str:
    measured = budgets(comparison.budgets, study.budget_name)
    tasks = plural(comparison.gain.count, "task")
    if len(comparison.budgets) > 1:
        return f"averaged over {measured} and {tasks}"
    return f"at {measured}, averaged over {tasks}" if comparison.gain.count > 1 else f"at {measured}"


def _tally(comparison: Comparison) -> str:
    total = comparison.gain.count
    if total == 1:
        return ""
    if total in (comparison.better, comparison.worse, comparison.equal):
        word = "better" if comparison.better else "worse" if comparison.worse else "equal"
        return f"{comparison.challenger.label} is {word} on all {total} tasks."
    parts = [f"better on {comparison.better}", f"worse on {comparison.worse}"]
    if comparison.equal:
        parts.append(f"equal on {comparison.equal}")
    return f"{comparison.challenger.label} is {', '.join(parts)} of {plural(total, 'task')}."


def _limits(comparison: Comparison, outcome: Outcome, family: int, write: MetricFormat) -> list[str]:
    """What an outcome that is neither win nor loss does and does not show."""
    if comparison.gain.count == 1:
        return ["One task says nothing about other tasks; measure more to decide."]
    if outcome is Outcome.OPEN:
        smallest = min(1.0, comparison.permutation.smallest_p * family)
        return [
            f"With {plural(comparison.gain.count, 'task')} the smallest corrected p-value the test can give "
            f"is {smallest:.2g}, above {ALPHA}; measure more tasks to decide."
        ]
    if outcome is Outcome.NULL and comparison.gain.bounded:
        return [
            f"The data are compatible with any true difference from {write.change(comparison.gain.low)} to "
            f"{write.change(comparison.gain.high)} {write.unit}".rstrip()
            + "; a null result is not proof that the methods are equal."
        ]
    return []


def _one_sided(study: Study) -> str:
    if study.challengers:
        return "No control is among the folders, so nothing is known about plain training at equal cost."
    return "Every folder is a control, so there is no method to judge."


def _nothing_compared(analysis: Analysis) -> str:
    study = analysis.study
    if len(study.methods) == 1:
        return f"Only {study.methods[0].label} was given; a comparison needs a control beside it."
    if not analysis.tasks:
        return "Nothing can be compared: no task was measured by every method."
    return f"Nothing can be compared: the methods share no {study.budget_name} at which both were measured."


def _spoken(metric: str) -> str:
    words = metric.replace("_", " ")
    return words[:1].upper() + words[1:]
