"""Numbers as a reader wants to see them: percentages, signed gains, p-values, counts, bytes, seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from innerloop.core.stats import Interval
from innerloop.report.study import Study

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "–"
NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class MetricFormat:
    """How values of the compared metric are written.

    Args:
        percent: whether a value is a share to be shown in per cent.
        decimals: digits after the point.
    """

    percent: bool
    decimals: int

    @property
    def unit(self) -> str:
        """What a difference is counted in."""
        return "points" if self.percent else ""

    @property
    def suffix(self) -> str:
        """What follows a value."""
        return f"{NBSP}%" if self.percent else ""

    def number(self, value: float) -> str:
        """A value without its unit, for tables: ``89.1``."""
        return _signed(self._scaled(value), plus=False)

    def value(self, value: float) -> str:
        """A value with its unit: ``89.1 %``."""
        return self.number(value) + self.suffix

    def change(self, value: float) -> str:
        """A difference with its sign, for tables: ``+41.1``."""
        return _signed(self._scaled(value), plus=True)

    def amount(self, value: float) -> str:
        """A difference without its sign, in words: ``41.1 points``."""
        return f"{self.number(abs(value))} {self.unit}".rstrip()

    def span(self, interval: Interval, signed: bool = False) -> str:
        """The limits of an interval: ``36.0 to 46.2``; a dash when they are open."""
        if not interval.bounded:
            return UNKNOWN
        write = self.change if signed else self.number
        return f"{write(interval.low)} to {write(interval.high)}"

    def _scaled(self, value: float) -> str:
        return f"{value * (100 if self.percent else 1):.{self.decimals}f}"


def metric_format(study: Study) -> MetricFormat:
    """Per cent for an accuracy or a rate within [0, 1], else about four digits for the largest value."""
    values = [abs(v) for method in study.methods for vs in method.values(study.metric).values() for v in vs]
    largest = max(values, default=0.0)
    if study.metric.lower().endswith(("accuracy", "rate")) and largest <= 1:
        return MetricFormat(percent=True, decimals=1)
    digits = math.floor(math.log10(largest)) if largest > 0 else 0
    return MetricFormat(percent=False, decimals=min(max(3 - digits, 0), 6))


def p_value(p: float) -> str:
    """``p < 0.001``, ``p = 0.012``, ``p = 0.34``; a dash where the test is undefined."""
    if math.isnan(p):
        return UNKNOWN
    return f"p{NBSP}{bare_p(p)}" if p < 0.001 else f"p{NBSP}={NBSP}{bare_p(p)}"


def bare_p(p: float) -> str:
    """A p-value for a table: ``< 0.001``, ``0.012``, ``0.34``."""
    if math.isnan(p):
        return UNKNOWN
    if p < 0.001:
        return f"<{NBSP}0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(amount: float | None) -> str:
    """A count with thousands set apart: ``19 200``; millions and more shortened: ``4.82 M``."""
    if amount is None:
        return UNKNOWN
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if amount >= size:
            return f"{amount / size:.3g}{NBSP}{name}"
    digits = 0 if float(amount).is_integer() or amount >= 100 else 1
    return f"{amount:,.{digits}f}".replace(",", NBSP)


def size(amount: float | None) -> str:
    """Bytes in decimal units: ``1.85 MB``."""
    if amount is None:
        return UNKNOWN
    for scale, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= scale:
            return f"{amount / scale:.3g}{NBSP}{name}"
    return f"{amount:.0f}{NBSP}B"


def duration(seconds: float | None) -> str:
    """``0.42 s``, ``38 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g}{NBSP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def ratio(value: float | None) -> str:
    """A multiple: ``1.00×``, ``12×``."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}×" if value < 10 else f"{value:.3g}×"


def plural(number: int, noun: str) -> str:
    """``1 task``, ``20 tasks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def budgets(amounts: Sequence[int], name: str) -> str:
    """Budgets in words: ``8 shots``, ``1 shot per class``, ``1, 2 and 4 shots``."""
    if tuple(amounts) == (1,):
        noun, space, rest = name.partition(" ")
        return f"1 {noun.removesuffix('s')}{space}{rest}"
    if len(amounts) == 1:
        return f"{amounts[0]} {name}"
    return f"{', '.join(map(str, amounts[:-1]))} and {amounts[-1]} {name}"


def _signed(text: str, plus: bool) -> str:
    """Replaces the hyphen by a minus sign, drops it from a rounded zero, and writes a plus on request."""
    digits = text.lstrip("-")
    if not digits.strip("0."):
        return digits
    if text.startswith("-"):
        return MINUS + digits
    return f"+{digits}" if plus else digits
