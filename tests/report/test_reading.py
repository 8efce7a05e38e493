"""Reading evaluation folders: what is accepted, what is skipped and counted, what is refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.report import read_study
from report.synthetic import result_line, simple_scores, write_evaluation

SCORES = simple_scores(lambda task, budget: 0.3 + 0.05 * budget + 0.01 * task, tasks=3)


def append(folder: Path, *lines: str) -> Path:
    with (folder / "results.jsonl").open("a") as results:
        results.write("\n".join(lines))
    return folder


def set_about(folder: Path, **about: object) -> Path:
    path = folder / "method.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | about))
    return folder


def test_reads_what_evaluate_writes(tmp_path: Path) -> None:
    training = [{"step": 1, "meta/avg_adaptation_gap": 0.5}, {"step": 2, "meta/avg_adaptation_gap": 0.25}]
    control = write_evaluation(tmp_path / "control", SCORES, method="sft", control=True)
    folder = write_evaluation(tmp_path / "a", SCORES, training=training, config={"x": {"y": 1}}, seed=3)
    study = read_study([control, folder])
    method = study.methods[0]
    assert [m.key for m in study.methods] == ["meta", "sft"]
    assert study.challengers == (method,)
    assert (study.metric, study.higher_is_better, study.budget_name) == ("accuracy", True, "shots")
    assert study.notes == ()
    assert method.tasks == ("task_0", "task_1", "task_2")
    assert method.budgets == (0, 4, 8)
    assert method.values("accuracy")["task_1", 4] == pytest.approx((0.5, 0.52))
    assert method.ledger.gradient_passes == 1000
    assert method.ledger.peak_memory_bytes is None
    assert method.adaptation.chosen_on == "validation tasks"
    assert method.training is not None
    assert method.training.curves["meta/avg_adaptation_gap"].values == (0.5, 0.25)
    assert method.seed == 3
    assert method.config == {"x": {"y": 1}}


def test_a_torn_last_line_is_skipped_and_counted(tmp_path: Path) -> None:
    folder = append(write_evaluation(tmp_path / "a", SCORES), '{"task": "task_0", "budget": 4, "ru')
    study = read_study([folder])
    assert len(study.methods[0].cells) == 18
    assert study.notes == ("META: 1 damaged line of results.jsonl skipped.",)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "7",
        '{"budget": 1, "run": 0, "metrics": {}}',
        '{"task": "t", "budget": -1, "run": 0, "metrics": {}}',
        '{"task": "t", "budget": 1.5, "run": 0, "metrics": {}}',
        '{"task": "t", "budget": true, "run": 0, "metrics": {}}',
        '{"task": "t", "budget": 1, "run": 0, "metrics": [0.5]}',
        '{"task": "\\ud800", "budget": 1, "run": 0, "metrics": {}}',
        '{"task": "", "budget": 1, "run": 0, "metrics": {}}',
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_damaged_lines_are_skipped_and_counted(tmp_path: Path, line: str) -> None:
    folder = append(write_evaluation(tmp_path / "a", SCORES), line, "", line)
    assert read_study([folder]).notes == ("META: 2 damaged lines of results.jsonl skipped.",)


def test_the_last_of_a_repeated_result_counts(tmp_path: Path) -> None:
    folder = append(write_evaluation(tmp_path / "a", SCORES), result_line("task_0", 4, 0, {"accuracy": 0.9}))
    study = read_study([folder])
    assert study.methods[0].values("accuracy")["task_0", 4][0] == 0.9
    assert "1 repeated line" in study.notes[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5", True, 10**400])
def test_metrics_that_are_no_finite_number_are_left_out_and_counted(tmp_path: Path, value: object) -> None:
    lines = [result_line("task_0", 4, run, {"accuracy": value}) for run in (0, 1)]
    study = read_study([append(write_evaluation(tmp_path / "a", SCORES), *lines)])
    assert ("task_0", 4) not in study.methods[0].values("accuracy")
    assert "META: 2 of 18 results have no finite accuracy and are left out." in study.notes


def test_training_metrics_may_be_damaged_missing_or_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "run" / "metrics.jsonl"
    elsewhere.parent.mkdir()
    elsewhere.write_text(
        '{"step": 3, "train/loss": 1.0}\n{"step": 1, "train/loss": 3.0}\n{"step": 3, "train/loss": 2.0}\n'
        '{"step": 4, "train/loss": NaN}\n{"step": 5, "tra'
    )
    folder = write_evaluation(tmp_path / "a", SCORES, training=None)
    set_about(folder, training={"metrics_file": "../run/metrics.jsonl"})
    study = read_study([folder])
    assert study.methods[0].training is not None
    assert study.methods[0].training.curves["train/loss"].steps == (1, 3)
    assert study.methods[0].training.curves["train/loss"].values == (3.0, 2.0)
    assert study.notes == ("META: 1 damaged line of metrics.jsonl skipped.",)
    set_about(folder, training={"metrics_file": str(elsewhere)})
    assert read_study([folder]).methods[0].training == study.methods[0].training
    set_about(folder, training={"metrics_file": "gone.jsonl"})
    assert "'gone.jsonl' are not there" in read_study([folder]).notes[0]


def test_a_folder_of_evaluations_stands_for_all_of_them(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "b", SCORES, method="second")
    write_evaluation(tmp_path / "a", SCORES, method="first")
    (tmp_path / "logs").mkdir()
    assert [method.key for method in read_study([tmp_path]).methods] == ["first", "second"]


def test_methods_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, SCORES) for name in ("one/x", "two/x", "three")]
    study = read_study(folders)
    assert [method.label for method in study.methods][2] == "META (three)"
    assert (
        len({method.key for method in study.methods}) == len({method.label for method in study.methods}) == 3
    )


def test_another_metric_can_be_compared(tmp_path: Path) -> None:
    study = read_study([write_evaluation(tmp_path / "a", SCORES)], metric="loss")
    assert (study.metric, study.higher_is_better) == ("loss", False)


def test_the_data_may_state_direction_and_budget(tmp_path: Path) -> None:
    folder = write_evaluation(
        tmp_path / "a", SCORES, metric="cost", higher_is_better=False, budget_name="episodes"
    )
    study = read_study([folder])
    assert (study.higher_is_better, study.budget_name) == (False, "episodes")


def make_missing(root: Path) -> list[Path]:
    return [root / "nowhere"]


def make_none(_: Path) -> list[Path]:
    return []


def make_bare(root: Path) -> list[Path]:
    return [root]


def make_empty_results(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "results.jsonl").write_text("")
    return [folder]


def make_only_damage(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "results.jsonl").write_text('{"task"\n[]\n')
    return [folder]


def make_without_results(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "results.jsonl").unlink()
    return [folder]


def make_results_a_folder(root: Path) -> list[Path]:
    (folder,) = make_without_results(root)
    (folder / "results.jsonl").mkdir()
    return [folder]


def make_without_method(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "method.json").unlink()
    return [folder]


def make_half_method(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "method.json").write_text('{"method": "me')
    return [folder]


def make_list_method(root: Path) -> list[Path]:
    folder = write_evaluation(root / "a", SCORES)
    (folder / "method.json").write_text("[]")
    return [folder]


def make_nameless(root: Path) -> list[Path]:
    return [set_about(write_evaluation(root / "a", SCORES), method=None)]


def make_wrong_label(root: Path) -> list[Path]:
    return [set_about(write_evaluation(root / "a", SCORES), label=3)]


def make_wrong_ledger(root: Path) -> list[Path]:
    return [set_about(write_evaluation(root / "a", SCORES), ledger=[1])]


def make_wrong_adaptation(root: Path) -> list[Path]:
    return [set_about(write_evaluation(root / "a", SCORES), adaptation="sgd")]


def make_all_nan(root: Path) -> list[Path]:
    return [write_evaluation(root / "a", {"t": {1: [math.nan, math.nan]}})]


def make_two_metrics(root: Path) -> list[Path]:
    return [write_evaluation(root / "a", SCORES), write_evaluation(root / "b", SCORES, metric="return")]


def make_two_budgets(root: Path) -> list[Path]:
    return [
        write_evaluation(root / "a", SCORES),
        write_evaluation(root / "b", SCORES, budget_name="episodes"),
    ]


def make_two_directions(root: Path) -> list[Path]:
    return [
        write_evaluation(root / "a", SCORES, higher_is_better=True),
        write_evaluation(root / "b", SCORES, higher_is_better=False),
    ]


def make_twice(root: Path) -> list[Path]:
    write_evaluation(root / "a", SCORES)
    return [root / "a", root / "a" / ".." / "a"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_missing, "no such folder"),
        (make_none, "no evaluation folder given"),
        (make_bare, "no results.jsonl in"),
        (make_empty_results, "no results in"),
        (make_only_damage, "2 damaged lines"),
        (make_without_results, "cannot read"),
        (make_results_a_folder, "cannot read"),
        (make_without_method, "cannot read"),
        (make_half_method, "is not valid JSON"),
        (make_list_method, "holds no JSON object"),
        (make_nameless, "'method' is missing"),
        (make_wrong_label, "'label' in"),
        (make_wrong_ledger, "'ledger' in"),
        (make_wrong_adaptation, "'adaptation' in"),
        (make_all_nan, "no finite 'accuracy'"),
        (make_two_metrics, "different metrics"),
        (make_two_budgets, "different budgets"),
        (make_two_directions, "disagree"),
        (make_twice, "given 2 times"),
    ],
)
def test_unusable_folders_are_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], list[Path]], words: str
) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        read_study(make(tmp_path))
    assert "\n" not in str(refusal.value)


def test_an_unknown_metric_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has accuracy, loss"):
        read_study([write_evaluation(tmp_path / "a", SCORES)], metric="f1")
