"""The verdict's words: a win, a loss and a null said plainly, and never more than the data carry."""

from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.report import read_study
from innerloop.report.analysis import analyse
from innerloop.report.formatting import NBSP, metric_format
from innerloop.report.study import Study
from innerloop.report.verdict import Outcome, Verdict, judge
from report.synthetic import Scores, simple_scores, write_evaluation


def level(value: float, tasks: int = 8, spread: float = 0.0) -> Scores:
    return simple_scores(lambda task, budget: value + 0.02 * budget + spread * (-1) ** task, tasks)


def verdict_on(study: Study) -> Verdict:
    return judge(analyse(study), metric_format(study))


def pair(
    root: Path, ours: Scores, theirs: Scores, passes: int | None = 1000, control: int | None = 1000
) -> Study:
    return read_study(
        [
            write_evaluation(root / "meta", ours, gradient_passes=passes),
            write_evaluation(root / "sft", theirs, method="sft", control=True, gradient_passes=control),
        ]
    )


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def test_a_win(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.6), level(0.4, spread=0.03)))
    assert verdict.outcome is Outcome.WIN
    assert verdict.headline == "META beats SFT at equal cost, by 20.0 points."
    assert plain(verdict.evidence[0]) == (
        "Accuracy 72.0 % against 52.0 %: 20.0 points better "
        "(95 % interval +17.3 to +22.7; corrected p = 0.008), averaged over 4 and 8 shots and 8 tasks. "
        "META is better on all 8 tasks."
    )
    assert len(verdict.evidence) == 1


def test_a_loss_is_said_as_plainly(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.4), level(0.6, spread=0.03)))
    assert verdict.outcome is Outcome.LOSS
    assert verdict.headline == "META loses to SFT at equal cost, by 20.0 points."
    assert "20.0 points worse" in verdict.evidence[0]
    assert "META is worse on all 8 tasks." in verdict.evidence[0]


def test_a_null_result_is_said_as_plainly(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.5), level(0.5, spread=0.05)))
    assert verdict.outcome is Outcome.NULL
    assert verdict.headline == "No difference found between META and SFT at equal cost."
    assert "better on 4, worse on 4 of 8 tasks" in verdict.evidence[0]
    assert plain(verdict.evidence[1]).startswith(
        "The data are compatible with any true difference from −4.5 to +4.5 points"
    )


def test_equal_results_are_null_even_with_few_tasks(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.5, tasks=2), level(0.5, tasks=2)))
    assert verdict.outcome is Outcome.NULL
    assert "no difference" in verdict.evidence[0]


def test_too_few_tasks_leave_it_open(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.9, tasks=4), level(0.1, tasks=4)))
    assert verdict.outcome is Outcome.OPEN
    assert verdict.headline == "META is ahead of SFT at equal cost, but 4 tasks cannot settle it."
    assert "smallest corrected p-value the test can give is 0.12" in verdict.evidence[1]


def test_one_task_says_nothing_about_others(tmp_path: Path) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.1, tasks=1), level(0.5, tasks=1)))
    assert verdict.outcome is Outcome.OPEN
    assert verdict.headline == "META is behind SFT at equal cost, but 1 task cannot settle it."
    assert verdict.evidence[1] == "One task says nothing about other tasks; measure more to decide."


@pytest.mark.parametrize(
    ("passes", "control", "headline", "sentence"),
    [
        (1050, 1000, "META beats SFT at equal cost", None),
        (
            3000,
            1000,
            "META beats SFT at a higher cost",
            "META used 3.00× the gradient passes and 3.00× the tokens of SFT",
        ),
        (500, 1000, "META beats SFT at a lower cost", "META used 0.50×"),
        (1000, 0, "META beats SFT", "SFT was not trained at all"),
        (0, 0, "META beats SFT", None),
        (None, 1000, "META beats SFT", "is not known"),
        (1000, None, "META beats SFT", "is not known"),
    ],
)
def test_cost_is_part_of_the_verdict(
    tmp_path: Path, passes: int | None, control: int | None, headline: str, sentence: str | None
) -> None:
    verdict = verdict_on(pair(tmp_path, level(0.6), level(0.4), passes, control))
    assert verdict.headline == f"{headline}, by 20.0 points."
    if sentence is None:
        assert len(verdict.evidence) == 1
    else:
        assert sentence in verdict.evidence[-1]


def test_passes_and_tokens_may_point_apart(tmp_path: Path) -> None:
    study = pair(tmp_path, level(0.6), level(0.4))
    meta, sft = study.methods
    ledger = replace(meta.ledger, gradient_passes=500, tokens=1e6)
    verdict = verdict_on(replace(study, methods=(replace(meta, ledger=ledger), sft)))
    assert "at a different cost" in verdict.headline


def test_hessian_products_are_part_of_the_cost(tmp_path: Path) -> None:
    study = pair(tmp_path, level(0.6), level(0.4))
    meta, sft = study.methods
    exact = replace(meta, ledger=replace(meta.ledger, hessian_products=750))
    verdict = verdict_on(replace(study, methods=(exact, sft)))
    assert "at a higher cost" in verdict.headline
    assert "2.50× the gradient passes" in verdict.evidence[-1]


def test_the_headline_is_the_best_challenger_against_the_trained_control(tmp_path: Path) -> None:
    def made(name: str, value: float, control: bool, passes: int) -> Path:
        return write_evaluation(
            tmp_path / name, level(value), method=name, control=control, gradient_passes=passes
        )

    study = read_study(
        [
            made("reptile", 0.5, False, 1000),
            made("fomaml", 0.6, False, 1000),
            made("sft", 0.4, True, 1000),
            made("icl", 0.7, True, 0),
        ]
    )
    verdict = verdict_on(study)
    assert verdict.headline.startswith("FOMAML beats SFT")
    assert len(verdict.others) == 3
    assert verdict.others[0].startswith("FOMAML loses to ICL: ")


def test_a_missing_control_is_said(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / name, level(value), method=name)
        for name, value in (("a", 0.6), ("b", 0.4))
    ]
    verdict = verdict_on(read_study(folders))
    assert verdict.headline.startswith("A beats B")
    assert "No control is among the folders" in verdict.evidence[-1]
    alone = verdict_on(read_study(folders[:1]))
    assert alone.outcome is Outcome.OPEN
    assert alone.headline == "Only A was given; a comparison needs a control beside it."
    assert alone.comparison is None


def test_controls_alone_are_said(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / name, level(value), method=name, control=True)
        for name, value in (("sft", 0.6), ("icl", 0.4))
    ]
    assert "Every folder is a control" in verdict_on(read_study(folders)).evidence[-1]


def test_nothing_shared_is_said(tmp_path: Path) -> None:
    other = {f"x{i}": budgets for i, budgets in enumerate(level(0.4).values())}
    assert (
        "no task was measured by every method" in verdict_on(pair(tmp_path / "a", level(0.6), other)).headline
    )
    apart = pair(tmp_path / "b", {"t": {1: [0.5]}}, {"t": {2: [0.5]}})
    assert "share no shots at which both were measured" in verdict_on(apart).headline


def test_a_loss_metric_is_judged_the_other_way_and_written_in_its_units(tmp_path: Path) -> None:
    ours = {f"t{i}": {5: [1.2 + 0.01 * i]} for i in range(8)}
    theirs = {f"t{i}": {5: [1.5 - 0.01 * i]} for i in range(8)}
    folders = [
        write_evaluation(tmp_path / "a", ours, metric="query_loss"),
        write_evaluation(tmp_path / "b", theirs, metric="query_loss", method="sft", control=True),
    ]
    verdict = verdict_on(read_study(folders))
    assert verdict.headline == "META beats SFT at equal cost, by 0.230."
    assert verdict.evidence[0].startswith("Query loss 1.235 against 1.465: 0.230 better")
    assert "at 5 shots, averaged over 8 tasks" in verdict.evidence[0]
