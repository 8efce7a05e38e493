"""Intervals, paired tests and summaries of a learning curve.

Pure functions of plain numbers: no files, no plots, no knowledge of what was measured. Which numbers are
paired, what the unit of replication is and which family of tests is corrected together is the caller's
decision (`innerloop.report` takes the task as the unit). Every function sorts or sums exactly where it
matters, so a result never depends on the order in which the tasks were listed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = Sequence[float] | NDArray[np.float64]

EXACT_SIGN_FLIPS = 30
"""Largest number of differences whose 2^n sign patterns are all counted."""

MONTE_CARLO_FLIPS = 100_000
RELATIVE_TIE = 1e-10
"""Sums closer than this share of the sum of absolute values count as equal: rounding must not break ties."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Args:
        mean: the sample mean.
        low: lower limit; minus infinity when one value alone leaves it open.
        high: upper limit; plus infinity when one value alone leaves it open.
        count: number of values.
        level: nominal coverage, for example 0.95.
    """

    mean: float
    low: float
    high: float
    count: int
    level: float

    @property
    def bounded(self) -> bool:
        """Whether there were enough values for finite limits."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the distance between the limits."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of "the paired differences are centred on zero".

    Args:
        name: the test, in words.
        count: number of differences.
        statistic: the value of the test's own statistic.
        p_value: two-sided; NaN where the test is undefined for these differences.
        exact: whether the p-value comes from the full null distribution, not from an approximation.
        smallest_p: the smallest p-value the test can give with this many differences.
    """

    name: str
    count: int
    statistic: float
    p_value: float
    exact: bool
    smallest_p: float


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    """Student's t interval of a mean: m ± t_{(1+level)/2, n-1} s / sqrt(n).

    Args:
        values: n >= 1 finite numbers.
        level: nominal coverage, between 0 and 1.

    Returns:
        The interval; unbounded on both sides when n = 1.

    Raises:
        ValueError: no value, a value that is not finite, or a level out of range.

    Source: Student, "The probable error of a mean", Biometrika 1908.
    """
    sample = _checked(values)
    _check_level(level)
    mean = _mean(sample)
    if len(sample) == 1:
        return Interval(mean, -math.inf, math.inf, 1, level)
    quantile = float(special.stdtrit(len(sample) - 1, (1 + level) / 2))
    half = quantile * _deviation(sample, mean) / math.sqrt(len(sample))
    return Interval(mean, mean - half, mean + half, len(sample), level)


def bootstrap_interval(
    values: Values, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap interval of a mean.

    The limits are the quantiles Φ(z0 + (z0 + z) / (1 - a (z0 + z))) of the resampled means, where
    z = Φ⁻¹((1 ± level) / 2), the bias is z0 = Φ⁻¹(share of resampled means below the mean, ties counted half)
    and the acceleration a = Σ d³ / (6 (Σ d²)^{3/2}), d_i the mean less the jackknife mean without value i.

    Args:
        values: n >= 1 finite numbers.
        level: nominal coverage, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: of the resampling; the order of the values does not matter.

    Returns:
        The interval, widened to the mean in the rare case where both quantiles lie on one side of it;
        unbounded when n = 1.

    Raises:
        ValueError: as `mean_interval`, or fewer than one resample.

    Source: Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    sample = np.sort(_checked(values))
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    mean = _mean(sample)
    if len(sample) == 1:
        return Interval(mean, -math.inf, math.inf, 1, level)
    generator = np.random.default_rng(seed)
    means = sample[generator.integers(0, len(sample), size=(resamples, len(sample)))].mean(axis=1)
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
    half_a_resample = 0.5 / resamples
    bias = special.ndtri(min(max(below, half_a_resample), 1 - half_a_resample))
    # The jackknife means are (n m - x_i) / (n - 1); m less these is (x_i - m) / (n - 1).
    distances = (sample - mean) / (len(sample) - 1)
    spread = float(np.sum(distances**2))
    acceleration = float(np.sum(distances**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    tails = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    quantiles = special.ndtr(bias + tails / (1 - acceleration * tails))
    low, high = (float(limit) for limit in np.quantile(means, quantiles))
    return Interval(mean, min(low, mean), max(high, mean), len(sample), level)


def paired_t_test(differences: Values) -> PairedTest:
    """Student's t test of paired differences: t = mean / (s / sqrt(n)) with n - 1 degrees of freedom.

    Equal differences leave t undefined: p is 1 when all are zero and NaN otherwise, and NaN for one
    difference, since no spread can be estimated.

    Raises:
        ValueError: no difference, or one that is not finite.

    Source: Student, Biometrika 1908.
    """
    sample = _checked(differences)
    name, count, mean = "paired t", len(sample), _mean(sample)
    if not np.any(sample):
        return PairedTest(name, count, 0.0, 1.0, exact=False, smallest_p=0.0)
    deviation = _deviation(sample, mean) if count > 1 else 0.0
    if deviation <= 1e-12 * abs(mean):
        return PairedTest(name, count, math.nan, math.nan, exact=False, smallest_p=0.0)
    statistic = mean / (deviation / math.sqrt(count))
    p_value = 2 * float(special.stdtr(count - 1, -abs(statistic)))
    return PairedTest(name, count, statistic, p_value, exact=False, smallest_p=0.0)


def sign_flip_test(differences: Values, seed: int = 0) -> PairedTest:
    """Permutation test of the mean difference: under the null each difference may have either sign.

    p is the share of the 2^n sign patterns whose absolute sum is at least the observed one. It assumes only
    that differences are symmetric about zero under the null, so it holds for bounded scores, for ceilings and
    for three tasks alike. Exact up to 30 differences, by sorting the sums of two halves and counting across
    them; beyond that from 100 000 seeded random patterns, the observed one among them.

    Raises:
        ValueError: no difference, or one that is not finite.

    Sources: Fisher, "The design of experiments", 1935, section 21; for the sampled case Phipson & Smyth,
    "Permutation p-values should never be zero", 2010.
    """
    sample = np.sort(_checked(differences))
    count = len(sample)
    exact = count <= EXACT_SIGN_FLIPS
    p_value = _exact_flip_p(sample) if exact else _sampled_flip_p(sample, seed)
    smallest = math.ldexp(1.0, 1 - count) if exact else 1 / (MONTE_CARLO_FLIPS + 1)
    return PairedTest("sign-flip permutation", count, _mean(sample), p_value, exact, smallest)


def wilcoxon_test(differences: Values) -> PairedTest:
    """Wilcoxon's signed-rank test; the statistic is the rank sum of the positive differences.

    Zero differences are dropped and ties share their mean rank. Up to 30 remaining differences the null
    distribution is counted in full, ties included; beyond that it is the normal approximation with the tie
    correction and without a continuity correction.

    Raises:
        ValueError: no difference, or one that is not finite.

    Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1945.
    """
    sample = _checked(differences)
    sample = sample[sample != 0]
    name, count = "Wilcoxon signed-rank", len(sample)
    if count == 0:
        return PairedTest(name, 0, 0.0, 1.0, exact=True, smallest_p=1.0)
    ranks = _mid_ranks(np.abs(sample))
    statistic = float(np.sum(ranks[sample > 0]))
    if count <= EXACT_SIGN_FLIPS:
        p_value = _exact_flip_p(ranks * np.sign(sample))
        return PairedTest(name, count, statistic, p_value, exact=True, smallest_p=math.ldexp(1.0, 1 - count))
    # Var(W+) = Σ rank² / 4, which is n(n+1)(2n+1)/24 less the tie correction.
    deviation = math.sqrt(float(np.sum(ranks**2)) / 4)
    score = (statistic - float(np.sum(ranks)) / 2) / deviation
    return PairedTest(
        name, count, statistic, 2 * float(special.ndtr(-abs(score))), exact=False, smallest_p=0.0
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down correction: family-wise error without assuming independence.

    With p_(1) <= ... <= p_(m), the corrected p_(i) is max over j <= i of min(1, (m - j + 1) p_(j)).

    Args:
        p_values: the p-values of one family, in any order.

    Returns:
        The corrected p-values in the order given.

    Raises:
        ValueError: a p-value outside [0, 1].

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return tuple(corrected)


def effect_size(differences: Values) -> float:
    """Standardised mean of paired differences, Hedges' g_z = (1 - 3 / (4 (n - 1) - 1)) mean / s.

    Returns:
        g_z; 0 when every difference is zero; NaN when there is one difference or no spread to divide by.

    Raises:
        ValueError: no difference, or one that is not finite.

    Sources: Cohen, "Statistical power analysis", 1988, section 2.3.5 (d_z); Hedges, "Distribution theory for
    Glass's estimator", 1981 (the small-sample factor).
    """
    sample = _checked(differences)
    mean = _mean(sample)
    if not np.any(sample):
        return 0.0
    deviation = _deviation(sample, mean) if len(sample) > 1 else 0.0
    if deviation <= 1e-12 * abs(mean):
        return math.nan
    return (1 - 3 / (4 * (len(sample) - 1) - 1)) * mean / deviation


def area_under_curve(x: Sequence[float], y: Sequence[float]) -> float:
    """Trapezoid area under a curve divided by its width: the mean height, in the units of y.

    Args:
        x: at least one strictly increasing position.
        y: the height at each position.

    Returns:
        The mean height; y itself for a single point.

    Raises:
        ValueError: lengths that differ, no point, values that are not finite, or x that does not increase.
    """
    heights, positions = _checked(y), _checked(x)
    if len(heights) != len(positions) or np.any(np.diff(positions) <= 0):
        raise ValueError("x must increase strictly and have one value for each y")
    if len(heights) == 1:
        return float(heights[0])
    return float(np.trapezoid(heights, positions) / (positions[-1] - positions[0]))


def first_reaching(
    budgets: Sequence[int], values: Sequence[float], level: float, higher_is_better: bool = True
) -> int | None:
    """The smallest measured budget whose value is at least as good as a level.

    Nothing is read between the measured budgets, and a curve that later falls back still counts.

    Args:
        budgets: measured budgets, in any order.
        values: the value at each budget.
        level: the value to reach.
        higher_is_better: whether "at least as good" means >= (else <=).

    Returns:
        The budget, or None when no measured budget reaches the level.

    Raises:
        ValueError: lengths that differ.
    """
    reached = [
        budget
        for budget, value in zip(budgets, values, strict=True)
        if (value >= level if higher_is_better else value <= level)
    ]
    return min(reached, default=None)


def _checked(values: Values) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"needs a flat list of at least one number, got shape {sample.shape}")
    if not np.all(np.isfinite(sample)):
        raise ValueError("every number must be finite")
    return sample


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


def _mean(sample: NDArray[np.float64]) -> float:
    return math.fsum(sample) / len(sample)


def _deviation(sample: NDArray[np.float64], mean: float) -> float:
    """Sample standard deviation with n - 1."""
    return math.sqrt(math.fsum((sample - mean) ** 2) / (len(sample) - 1))


def _signed_sums(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all 2^n sign patterns, sorted."""
    sums = np.zeros(1)
    for magnitude in magnitudes:
        sums = np.concatenate((sums - magnitude, sums + magnitude))
    return np.sort(sums)


def _exact_flip_p(differences: NDArray[np.float64]) -> float:
    magnitudes = np.abs(differences)
    threshold = abs(math.fsum(differences)) - RELATIVE_TIE * math.fsum(magnitudes)
    if threshold <= 0:
        return 1.0
    middle = len(magnitudes) // 2
    first, second = _signed_sums(magnitudes[:middle]), _signed_sums(magnitudes[middle:])
    # The null distribution is symmetric: count one tail, a + b >= threshold, and double it.
    upper_tail = int(np.sum(len(second) - np.searchsorted(second, threshold - first, side="left")))
    return 2 * upper_tail / (len(first) * len(second))


def _sampled_flip_p(differences: NDArray[np.float64], seed: int) -> float:
    generator = np.random.default_rng(seed)
    magnitudes = np.abs(differences)
    threshold = abs(math.fsum(differences)) - RELATIVE_TIE * math.fsum(magnitudes)
    words = generator.integers(0, 256, size=(MONTE_CARLO_FLIPS, (len(differences) + 7) // 8), dtype=np.uint8)
    positive = np.unpackbits(words, axis=1, count=len(differences))
    sums = 2 * (positive @ magnitudes) - np.sum(magnitudes)
    return (1 + int(np.count_nonzero(np.abs(sums) >= threshold))) / (MONTE_CARLO_FLIPS + 1)


def _mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
