"""An evaluation as a Markdown table."""

from innerloop.core.stats import Interval
from innerloop.rl.records import Evaluation


def markdown(evaluation: Evaluation) -> str:
    """Returns by episodes of adaptation, violations, and the figures that follow, with what they are of."""
    e = evaluation
    last = len(e.episodes) - 1
    lines = [
        f"{e.family}, {e.clusters} {e.split} clusters, {e.seeds} seeds of adaptation on each, "
        f"{e.judged_on} episodes a measurement. Mean return over clusters (higher is better) and half its "
        "95 % interval, after so many episodes of adaptation; share of requests over the latency objective "
        "before and after all of them.",
        "",
        f"| method | {' | '.join(map(str, e.episodes))} | violations before | after |",
        "|" + " --- |" * (len(e.episodes) + 3),
    ]
    for measured in e.methods:
        curve, slow = e.curve(measured.name), e.violations(measured.name)
        if measured.adapts:
            cells = [written(interval) for interval in curve]
            before, after = (percent(slow[place]) for place in (0, last))
        else:
            cells = [written(curve[0]), *("" for _ in e.episodes[1:])]
            before, after = percent(slow[0]), ""
        lines.append(f"| {measured.name} | {' | '.join(cells)} | {before} | {after} |")
    lines += [
        "",
        "| method | gained | episodes to 90 % of its gain | gain on the way | jumpstart | area ratio "
        "| final gain | scratch needs | adaptation accuracy | parameter distance | environment steps "
        "| seconds |",
        "|" + " --- |" * 12,
    ]
    for measured in e.methods:
        if measured.training is None:
            continue
        found = e.figures(measured.name)
        cells = [
            measured.name,
            written(found.gain),
            _or_dash(found.speed.episodes, "d"),
            f"{found.speed.area:.2f}",
            f"{found.transfer.jumpstart:.2f}",
            _or_dash(found.transfer.area_ratio, ".2f"),
            f"{found.transfer.asymptotic_gain:.2f}",
            "-" if found.speed_up is None else f"{found.speed_up:.1f} times",
            _or_dash(found.accuracy, ".2f"),
            f"{measured.parameter_distance:.3f}",
            str(measured.training.environment_steps),
            f"{measured.training.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    comparisons = e.comparisons()
    if comparisons:
        lines += [
            "",
            f"Paired by cluster, after {e.episodes[-1]} episodes; sign-flip test, Holm's correction.",
            "",
            "| | against | difference in return | p |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {c.first} | {c.second} | {written(c.difference)} | {c.p_value:.2g} |" for c in comparisons
        ]
    return "\n".join(lines) + "\n"


def written(interval: Interval) -> str:
    """A mean and half the width of its interval, which one value alone does not have."""
    return f"{interval.mean:.2f}" + (f" ± {interval.half_width:.2f}" if interval.bounded else "")


def percent(interval: Interval) -> str:
    """A share in per cent."""
    return f"{100 * interval.mean:.1f} %"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
