"""core.stats against closed forms, brute force, scipy.stats and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from innerloop.core import stats

numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 6))
samples = st.lists(numbers, min_size=1, max_size=12)


def brute_force_flip_p(differences: list[float]) -> float:
    observed = abs(math.fsum(differences))
    tolerance = stats.RELATIVE_TIE * sum(map(abs, differences))
    sums = [
        abs(math.fsum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(total >= observed - tolerance for total in sums) / len(sums)


class TestIntervals:
    def test_t_interval_of_known_numbers(self) -> None:
        # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764451
        interval = stats.mean_interval([1, 2, 3, 4, 5])
        half = 2.7764451051977987 * math.sqrt(2.5) / math.sqrt(5)
        assert interval.mean == 3
        assert interval.low == pytest.approx(3 - half, rel=1e-12)
        assert interval.high == pytest.approx(3 + half, rel=1e-12)
        assert interval.half_width == pytest.approx(half)

    @given(st.lists(numbers, min_size=2, max_size=12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
    def test_t_interval_equals_scipy(self, values: list[float], level: float) -> None:
        assume(np.std(values) > 1e-6)
        expected = reference.ttest_1samp(values, 0).confidence_interval(level)
        interval = stats.mean_interval(values, level)
        assert (interval.low, interval.high) == pytest.approx(
            (expected.low, expected.high), rel=1e-7, abs=1e-7
        )

    @given(samples, st.floats(0.01, 0.99))
    def test_intervals_contain_the_mean(self, values: list[float], level: float) -> None:
        for interval in (
            stats.mean_interval(values, level),
            stats.bootstrap_interval(values, level, resamples=200),
        ):
            assert interval.low <= interval.mean <= interval.high
            assert interval.count == len(values)

    @given(samples, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, values: list[float], random) -> None:  # type: ignore[no-untyped-def]
        shuffled = random.sample(values, len(values))
        assert stats.mean_interval(values) == stats.mean_interval(shuffled)
        assert stats.bootstrap_interval(values, resamples=50) == stats.bootstrap_interval(
            shuffled, resamples=50
        )

    def test_one_value_leaves_the_interval_open(self) -> None:
        for interval in (stats.mean_interval([0.4]), stats.bootstrap_interval([0.4])):
            assert (interval.low, interval.high) == (-math.inf, math.inf)
            assert not interval.bounded

    def test_bootstrap_equals_scipy_bca(self) -> None:
        values = np.random.default_rng(3).exponential(size=25)
        expected = reference.bootstrap(
            (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
        ).confidence_interval
        interval = stats.bootstrap_interval(values, resamples=40_000)
        width = expected.high - expected.low
        assert interval.low == pytest.approx(expected.low, abs=0.02 * width)
        assert interval.high == pytest.approx(expected.high, abs=0.02 * width)

    def test_bootstrap_of_equal_values_has_no_width(self) -> None:
        interval = stats.bootstrap_interval([0.25] * 6)
        assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)

    @pytest.mark.parametrize("count", [3, 8, 25])
    def test_t_interval_covers_the_true_mean_at_its_level(self, count: int) -> None:
        generator = np.random.default_rng(count)
        covered = 0
        for _ in range(4000):
            interval = stats.mean_interval(generator.normal(0.6, 0.2, size=count))
            covered += interval.low <= 0.6 <= interval.high
        assert covered / 4000 == pytest.approx(0.95, abs=0.012)

    def test_bootstrap_covers_a_skewed_mean(self) -> None:
        generator = np.random.default_rng(5)
        covered = 0
        for seed in range(600):
            interval = stats.bootstrap_interval(generator.exponential(size=80), resamples=600, seed=seed)
            covered += interval.low <= 1 <= interval.high
        assert 0.92 <= covered / 600 <= 0.98

    @pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0], [[1.0, 2.0]]])
    def test_bad_values_are_refused(self, values: list[float]) -> None:
        for function in (
            stats.mean_interval,
            stats.bootstrap_interval,
            stats.paired_t_test,
            stats.sign_flip_test,
        ):
            with pytest.raises(ValueError, match="number"):
                function(values)

    def test_bad_settings_are_refused(self) -> None:
        with pytest.raises(ValueError, match="level"):
            stats.mean_interval([1.0], level=95)
        with pytest.raises(ValueError, match="resamples"):
            stats.bootstrap_interval([1.0, 2.0], resamples=0)


class TestPairedTests:
    @given(st.lists(numbers, min_size=2, max_size=12))
    def test_t_equals_scipy(self, differences: list[float]) -> None:
        assume(np.std(differences) > 1e-6)
        expected = reference.ttest_1samp(differences, 0)
        result = stats.paired_t_test(differences)
        assert result.statistic == pytest.approx(expected.statistic, rel=1e-6, abs=1e-9)
        assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)

    def test_t_without_spread_is_undefined_not_certain(self) -> None:
        assert math.isnan(stats.paired_t_test([0.9 - 0.4, 0.8 - 0.3, 0.5]).p_value)
        assert math.isnan(stats.paired_t_test([0.5]).p_value)
        assert stats.paired_t_test([0.0, 0.0]).p_value == 1

    @given(st.lists(numbers, min_size=1, max_size=9))
    @example([1.0, 1000.0, 1000.0, 1e-06])  # almost a tie, and none
    @settings(max_examples=60)
    def test_sign_flip_equals_enumeration(self, differences: list[float]) -> None:
        result = stats.sign_flip_test(differences)
        assert result.exact
        assert result.p_value == pytest.approx(brute_force_flip_p(differences), rel=1e-12)

    @given(st.lists(st.integers(-3, 3).map(lambda n: n / 10), min_size=1, max_size=9))
    @settings(max_examples=60)
    def test_sign_flip_counts_ties_in_spite_of_rounding(self, differences: list[float]) -> None:
        assert stats.sign_flip_test(differences).p_value == pytest.approx(brute_force_flip_p(differences))

    def test_sign_flip_agrees_with_scipy(self) -> None:
        differences = np.random.default_rng(0).normal(0.3, 1, size=11)
        expected = reference.permutation_test(
            (differences, np.zeros(11)), lambda x, y: np.mean(x - y), permutation_type="samples"
        ).pvalue
        assert stats.sign_flip_test(differences).p_value == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("count", [1, 2, 5, 20, 30])
    def test_all_one_sign_gives_the_smallest_p(self, count: int) -> None:
        result = stats.sign_flip_test(np.linspace(1, 2, count))
        assert result.p_value == result.smallest_p == 2.0 ** (1 - count)

    def test_sampled_sign_flip_is_close_to_the_exact_one(self) -> None:
        differences = np.random.default_rng(1).normal(0.25, 1, size=30)
        exact = stats.sign_flip_test(differences)
        sampled = stats.sign_flip_test(np.append(differences, 0.0))
        assert exact.exact
        assert not sampled.exact
        assert sampled.p_value == pytest.approx(exact.p_value, abs=0.005)
        assert stats.sign_flip_test(np.full(40, 0.1)).p_value > 0

    def test_sign_flip_rejects_at_its_level_under_the_null(self) -> None:
        generator = np.random.default_rng(9)
        rejected = sum(stats.sign_flip_test(generator.standard_t(3, 10)).p_value <= 0.05 for _ in range(3000))
        assert rejected / 3000 == pytest.approx(0.05, abs=0.012)

    @given(st.lists(numbers, min_size=1, max_size=12, unique_by=abs))
    def test_wilcoxon_equals_scipy_without_ties(self, differences: list[float]) -> None:
        assume(0 not in differences)
        expected = reference.wilcoxon(differences, method="exact")
        assert stats.wilcoxon_test(differences).p_value == pytest.approx(expected.pvalue, rel=1e-12)

    def test_wilcoxon_counts_ties_and_zeros_in_full(self) -> None:
        differences = [0.1, 0.1, -0.1, 0.3, 0.0, 0.2, 0.2]
        ranks = [2.0, 2.0, -2.0, 6.0, 4.5, 4.5]
        result = stats.wilcoxon_test(differences)
        assert result.count == 6
        assert result.statistic == 19
        assert result.p_value == pytest.approx(brute_force_flip_p(ranks))
        assert stats.wilcoxon_test([0.0, 0.0]).p_value == 1

    def test_wilcoxon_of_many_equals_scipy_with_ties(self) -> None:
        differences = np.round(np.random.default_rng(4).normal(0.2, 1, size=60), 1)
        expected = reference.wilcoxon(differences, method="asymptotic", correction=False)
        assert stats.wilcoxon_test(differences).p_value == pytest.approx(expected.pvalue, rel=1e-9)

    @given(samples, st.randoms(use_true_random=False))
    def test_order_and_direction_do_not_matter(self, differences: list[float], random) -> None:  # type: ignore[no-untyped-def]
        shuffled = [-value for value in random.sample(differences, len(differences))]
        for test in (stats.paired_t_test, stats.sign_flip_test, stats.wilcoxon_test):
            assert test(shuffled).p_value == pytest.approx(test(differences).p_value, nan_ok=True)


class TestHolm:
    def test_worked_example(self) -> None:
        assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))

    @given(st.lists(st.floats(0, 1), max_size=10))
    def test_monotone_bounded_and_never_below_the_raw_p(self, p_values: list[float]) -> None:
        corrected = stats.holm(p_values)
        order = np.argsort(p_values, kind="stable")
        assert all(raw <= adjusted <= 1 for raw, adjusted in zip(p_values, corrected, strict=True))
        assert all(corrected[a] <= corrected[b] for a, b in itertools.pairwise(order))
        bonferroni = [min(1.0, len(p_values) * p) for p in p_values]
        assert all(adjusted <= bound for adjusted, bound in zip(corrected, bonferroni, strict=True))

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, p_values: list[float], random) -> None:  # type: ignore[no-untyped-def]
        order = random.sample(range(len(p_values)), len(p_values))
        shuffled = stats.holm([p_values[i] for i in order])
        assert shuffled == tuple(stats.holm(p_values)[i] for i in order)

    @pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
    def test_bad_p_is_refused(self, bad: float) -> None:
        with pytest.raises(ValueError, match="p-values"):
            stats.holm([0.5, bad])


class TestCurves:
    def test_effect_size_of_known_numbers(self) -> None:
        # mean 2, s = 1, n = 3: (1 - 3/7) * 2
        assert stats.effect_size([1, 2, 3]) == pytest.approx(8 / 7)
        assert stats.effect_size([0.0, 0.0]) == 0
        assert math.isnan(stats.effect_size([0.5, 0.5]))
        assert math.isnan(stats.effect_size([0.5]))

    def test_area_of_known_shapes(self) -> None:
        assert stats.area_under_curve([0, 10], [0, 1]) == pytest.approx(0.5)
        assert stats.area_under_curve([0, 1, 4], [1, 1, 1]) == pytest.approx(1)
        assert stats.area_under_curve([2, 4, 8], [0, 2, 2]) == pytest.approx(10 / 6)
        assert stats.area_under_curve([7], [0.3]) == 0.3

    @pytest.mark.parametrize(("x", "y"), [([0, 0], [1, 2]), ([1, 0], [1, 2]), ([0, 1, 2], [1, 2]), ([], [])])
    def test_area_refuses_bad_curves(self, x: list[float], y: list[float]) -> None:
        with pytest.raises(ValueError, match=r"x must|number"):
            stats.area_under_curve(x, y)

    def test_first_reaching(self) -> None:
        budgets, values = [10, 0, 5, 50], [0.7, 0.2, 0.5, 0.6]
        assert stats.first_reaching(budgets, values, 0.6) == 10
        assert stats.first_reaching(budgets, values, 0.5) == 5
        assert stats.first_reaching(budgets, values, 0.71) is None
        assert stats.first_reaching(budgets, values, 0.5, higher_is_better=False) == 0
        with pytest.raises(ValueError, match="zip"):
            stats.first_reaching([1, 2], [0.5], 0.1)
