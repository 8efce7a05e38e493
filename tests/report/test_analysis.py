"""The comparison: what is averaged, paired, tested and left out."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from innerloop.report import Study, read_study
from innerloop.report.analysis import Analysis, Comparison, analyse, cost_ratio
from report.synthetic import Scores, simple_scores, write_evaluation


def study_of(root: Path, *scores: Scores, controls: int = 1, **about: object) -> Study:
    """The last `controls` scores are controls."""
    first_control = len(scores) - controls
    return read_study(
        [
            write_evaluation(root / str(i), found, method=f"m{i}", control=i >= first_control, **about)
            for i, found in enumerate(scores)
        ]
    )


def only(analysis: Analysis) -> Comparison:
    (comparison,) = analysis.overall
    return comparison


def random_scores(seed: int, tasks: int, budgets: tuple[int, ...] = (0, 2, 8), runs: int = 3) -> Scores:
    generator = np.random.default_rng(seed)
    return {f"task_{i}": {b: list(generator.uniform(0.2, 0.9, runs)) for b in budgets} for i in range(tasks)}


def test_the_task_is_the_unit_and_runs_are_averaged_inside(tmp_path: Path) -> None:
    ours, theirs = random_scores(1, 9), random_scores(2, 9)
    comparison = only(analyse(study_of(tmp_path, ours, theirs)))
    gains = [
        np.mean([np.mean(ours[task][b]) - np.mean(theirs[task][b]) for b in (2, 8)]) for task in ours
    ]  # budget 0 shows a method nothing of the task
    expected = reference.ttest_1samp(gains, 0)
    limits = expected.confidence_interval(0.95)
    assert comparison.budgets == (2, 8)
    assert comparison.gain.count == 9
    assert comparison.gain.mean == pytest.approx(np.mean(gains))
    assert (comparison.gain.low, comparison.gain.high) == pytest.approx((limits.low, limits.high))
    assert comparison.t_test.p_value == pytest.approx(expected.pvalue)
    assert comparison.wilcoxon.p_value == pytest.approx(reference.wilcoxon(gains, method="exact").pvalue)
    assert comparison.permutation.exact
    assert comparison.better == sum(gain > 0 for gain in gains)
    assert comparison.better + comparison.worse + comparison.equal == 9


def test_more_runs_do_not_make_more_evidence(tmp_path: Path) -> None:
    few, many = (
        analyse(
            study_of(
                tmp_path / str(copies),
                {
                    task: {b: list(v) * copies for b, v in bs.items()}
                    for task, bs in random_scores(1, 6).items()
                },
                {
                    task: {b: list(v) * copies for b, v in bs.items()}
                    for task, bs in random_scores(2, 6).items()
                },
            )
        )
        for copies in (1, 5)
    )
    assert only(few).permutation.p_value == only(many).permutation.p_value
    assert only(few).gain.half_width == pytest.approx(only(many).gain.half_width)


def test_average_curve_has_intervals_over_tasks(tmp_path: Path) -> None:
    scores = random_scores(3, 5)
    curve = analyse(study_of(tmp_path, scores, scores)).averages[0]
    means = [np.mean(scores[task][2]) for task in scores]
    expected = reference.ttest_1samp(means, 0).confidence_interval(0.95)
    assert [point.budget for point in curve.points] == [0, 2, 8]
    assert (curve.points[1].interval.low, curve.points[1].interval.high) == pytest.approx(
        (expected.low, expected.high)
    )


def test_holm_is_applied_over_all_pairs_and_apart_over_budgets(tmp_path: Path) -> None:
    analysis = analyse(study_of(tmp_path, *(random_scores(seed, 8) for seed in range(4)), controls=2))
    assert len(analysis.overall) == 4
    assert len(analysis.by_budget) == 12
    for family in (analysis.overall, analysis.by_budget):
        smallest = min(family, key=lambda comparison: comparison.permutation.p_value)
        assert smallest.corrected_p == pytest.approx(min(1, len(family) * smallest.permutation.p_value))
        assert all(comparison.corrected_p >= comparison.permutation.p_value for comparison in family)


def test_gain_is_positive_where_the_challenger_is_better_whichever_way_the_metric_points(
    tmp_path: Path,
) -> None:
    low, high = simple_scores(lambda t, b: 0.2), simple_scores(lambda t, b: 0.5)
    study = study_of(tmp_path, low, high)
    assert only(analyse(study)).gain.mean == pytest.approx(-0.3)
    assert only(analyse(replace(study, higher_is_better=False))).gain.mean == pytest.approx(0.3)


def test_scores_equal_but_for_rounding_are_a_tie(tmp_path: Path) -> None:
    ours = {f"t{i}": {1: [0.1 + 0.2]} for i in range(6)}
    theirs = {f"t{i}": {1: [0.3]} for i in range(6)}
    comparison = only(analyse(study_of(tmp_path, ours, theirs)))
    assert (comparison.equal, comparison.gain.mean, comparison.corrected_p) == (6, 0, 1)


def test_order_of_tasks_and_folders_changes_nothing(tmp_path: Path) -> None:
    ours, theirs = random_scores(4, 7), random_scores(5, 7)
    names = list(ours)
    random.shuffle(names)
    straight = only(analyse(study_of(tmp_path / "a", ours, theirs)))
    shuffled = study_of(
        tmp_path / "b", {n: ours[n] for n in names}, {n: theirs[n] for n in sorted(names)[::-1]}
    )
    other = only(analyse(replace(shuffled, methods=shuffled.methods[::-1])))
    assert other.gain.mean == pytest.approx(straight.gain.mean)
    assert other.bootstrap.low == pytest.approx(straight.bootstrap.low)
    assert other.corrected_p == straight.corrected_p


class TestCommonGround:
    def test_tasks_are_intersected_and_the_rest_named(self, tmp_path: Path) -> None:
        ours, theirs = random_scores(1, 8), random_scores(2, 6)
        analysis = analyse(study_of(tmp_path, ours, theirs))
        assert analysis.tasks == tuple(theirs)
        assert only(analysis).gain.count == 6
        assert analysis.averages[0].points[0].interval.count == 6
        assert len(analysis.by_task) == 8
        assert "6 of 8 tasks" in analysis.notes[-1]
        assert "task_6, task_7" in analysis.notes[-1]

    def test_budgets_are_intersected_pair_by_pair(self, tmp_path: Path) -> None:
        analysis = analyse(study_of(tmp_path, random_scores(1, 6, (0, 1, 4)), random_scores(2, 6, (1, 2, 4))))
        assert only(analysis).budgets == (1, 4)
        assert [c.budgets for c in analysis.by_budget] == [(1,), (4,)]
        assert [p.budget for p in analysis.averages[0].points] == [0, 1, 4]
        assert "M0 lacks 2; M1 lacks 0" in analysis.notes[-1]

    def test_an_unfinished_task_is_left_out_of_the_averages(self, tmp_path: Path) -> None:
        ours, theirs = random_scores(1, 8), dict(random_scores(2, 8))
        theirs["task_7"] = {0: [0.5]}
        analysis = analyse(study_of(tmp_path, ours, theirs))
        assert "task_7" not in analysis.tasks
        assert len(analysis.tasks) == 7
        assert [p.budget for p in analysis.averages[1].points] == [0, 2, 8]

    def test_a_barely_begun_budget_is_left_out_instead_of_most_tasks(self, tmp_path: Path) -> None:
        ours, theirs = random_scores(1, 8), dict(random_scores(2, 8, (0, 2)))
        theirs["task_0"] = {0: [0.5], 2: [0.5], 8: [0.5]}
        analysis = analyse(study_of(tmp_path, ours, theirs))
        assert len(analysis.tasks) == 8
        assert [p.budget for p in analysis.averages[1].points] == [0, 2]
        assert any("M1: not measured on every shared task at 8 shots" in note for note in analysis.notes)

    def test_a_diverged_cell_takes_its_task_out_and_is_counted(self, tmp_path: Path) -> None:
        ours, theirs = dict(random_scores(1, 8)), random_scores(2, 8)
        ours["task_3"] = {**ours["task_3"], 8: [math.nan] * 3}
        analysis = analyse(study_of(tmp_path, ours, theirs))
        assert "task_3" not in analysis.tasks
        assert any("3 of 72 results have no finite accuracy" in note for note in analysis.notes)

    def test_no_shared_task_means_no_comparison(self, tmp_path: Path) -> None:
        theirs = {f"other_{i}": budgets for i, budgets in enumerate(random_scores(2, 4).values())}
        analysis = analyse(study_of(tmp_path, random_scores(1, 4), theirs))
        assert (analysis.tasks, analysis.overall, analysis.reference) == ((), (), None)
        assert "No task was measured by every method" in analysis.notes[-1]

    def test_only_the_unadapted_point_is_shared(self, tmp_path: Path) -> None:
        analysis = analyse(study_of(tmp_path, random_scores(1, 6), random_scores(2, 6, (0,))))
        assert only(analysis).budgets == (0,)

    def test_no_shared_budget_means_no_comparison(self, tmp_path: Path) -> None:
        analysis = analyse(study_of(tmp_path, random_scores(1, 6, (1, 2)), random_scores(2, 6, (4,))))
        assert analysis.overall == ()
        assert len(analysis.averages[1].points) == 1


class TestControls:
    def test_the_strongest_trained_control_is_the_reference(self, tmp_path: Path) -> None:
        def made(name: str, level: float, passes: int | None, control: bool = True) -> Path:
            scores = simple_scores(lambda t, b: level)
            return write_evaluation(
                tmp_path / name, scores, method=name, control=control, gradient_passes=passes
            )

        folders = [
            made("meta", 0.8, 100, control=False),
            made("weak", 0.4, 100),
            made("sft", 0.5, 110),
            made("icl", 0.7, 0),
        ]
        analysis = analyse(read_study(folders))
        assert analysis.reference is not None
        assert analysis.reference.key == "sft"
        assert cost_ratio(analysis.study.methods[0], analysis.reference, "gradient_passes") == pytest.approx(
            10 / 11
        )
        untrained = analyse(read_study([folders[0], folders[3]]))
        assert untrained.reference is not None
        assert untrained.reference.key == "icl"
        assert cost_ratio(untrained.study.methods[0], untrained.reference, "gradient_passes") is None
        assert analyse(read_study(folders[:1])).reference is None

    def test_without_a_control_every_two_methods_are_compared(self, tmp_path: Path) -> None:
        analysis = analyse(study_of(tmp_path, *(random_scores(s, 5) for s in range(3)), controls=0))
        assert len(analysis.overall) == 3
        assert analysis.target is None


class TestEfficiency:
    def test_smallest_budget_that_reaches_the_controls_best(self, tmp_path: Path) -> None:
        ours = simple_scores(lambda t, b: {0: 0.2, 4: 0.55, 8: 0.9}[b])
        weak = simple_scores(lambda t, b: 0.2)
        theirs = simple_scores(lambda t, b: {0: 0.2, 4: 0.5, 8: 0.4}[b])
        analysis = analyse(study_of(tmp_path, ours, weak, theirs))
        assert analysis.target == pytest.approx(0.5)
        assert [entry.budget for entry in analysis.efficiency] == [4, None, 4]
        assert analysis.efficiency[0].area == pytest.approx((0.375 + 0.725) / 2)

    def test_lower_may_be_better(self, tmp_path: Path) -> None:
        ours = simple_scores(lambda t, b: {0: 0.9, 4: 0.3, 8: 0.1}[b])
        theirs = simple_scores(lambda t, b: {0: 0.9, 4: 0.6, 8: 0.4}[b])
        analysis = analyse(replace(study_of(tmp_path, ours, theirs), higher_is_better=False))
        assert analysis.target == pytest.approx(0.4)
        assert [entry.budget for entry in analysis.efficiency] == [4, 8]


class TestNotes:
    def test_unequal_runs_and_seeds_are_told(self, tmp_path: Path) -> None:
        study = study_of(tmp_path, random_scores(1, 5, runs=2), random_scores(2, 5, runs=3))
        first, second = study.methods
        notes = analyse(replace(study, methods=(first, replace(second, seed=None)))).notes
        assert any("M0 2, M1 3" in note for note in notes)
        assert any("M0 0, M1 unknown" in note for note in notes)

    def test_one_run_is_told(self, tmp_path: Path) -> None:
        analysis = analyse(study_of(tmp_path, random_scores(1, 5, runs=1), random_scores(2, 5, runs=1)))
        assert any("One run per task" in note for note in analysis.notes)
        assert not analysis.by_task[0].curves[0].points[0].interval.bounded

    def test_a_clean_study_has_none(self, tmp_path: Path) -> None:
        assert analyse(study_of(tmp_path, random_scores(1, 5), random_scores(2, 5))).notes == ()


def test_one_task_gives_no_interval_and_no_significance(tmp_path: Path) -> None:
    comparison = only(analyse(study_of(tmp_path, random_scores(1, 1), random_scores(2, 1))))
    assert not comparison.gain.bounded
    assert comparison.corrected_p == 1
    assert math.isnan(comparison.t_test.p_value)


def test_many_tasks_are_tested_by_sampling(tmp_path: Path) -> None:
    comparison = only(analyse(study_of(tmp_path, random_scores(1, 40, (4,)), random_scores(2, 40, (4,)))))
    assert not comparison.permutation.exact
    assert comparison.permutation.p_value == pytest.approx(comparison.t_test.p_value, abs=0.02)
