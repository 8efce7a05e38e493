"""The user's own files, the hub's copies, and how tasks are chosen."""

import json
from pathlib import Path

import datasets
import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import (
    CustomOptions,
    NoOptions,
)
from innerloop.llm.data.presets import (
    clinc150,
    custom,
    math,
    math_science,
)
from innerloop.llm.data.presets.base import Request, Source, choose, with_usual
from llm.data.preparing import lines, problem, task

# The user's own files


def custom_tasks(folder: Path, content: object, **options: object) -> Source:
    path = folder / "task_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return custom.tasks(Request(), CustomOptions(path, **options))  # type: ignore[arg-type]


def test_the_keys_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "elsewhere").mkdir()
    lines(tmp_path / "lists" / "beside.jsonl", {"prompt": "a", "response": "b"})
    lines(tmp_path / "elsewhere" / "here.jsonl", {"ask": "a", "say": "b", "gold": "c"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    content = {
        "plain": {"input_file": "beside.jsonl", "support_ratio": 0.7, "max_samples": 9},
        "named": {
            "input_file": "here.jsonl",
            "prompt_key": "ask",
            "response_key": "say",
            "answer_key": "gold",
            "grader": "number",
        },
    }
    source = custom_tasks(tmp_path / "lists", content, support_size=5, balance=True)
    plain, named = source.tasks
    assert (plain.plan.support, plain.plan.max_rows, plain.plan.support_rows) == (0.7, 9, 5)
    assert (plain.grader, named.grader, named.pool[0].answer) == ("exact", "number", "c")
    assert source.balance


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "broken JSON"),
        ("[]", "must be an object with one entry a task"),
        ({}, "must be an object with one entry a task"),
        ({"t": "rows.jsonl"}, "task 't': must be an object with an input_file"),
        ({"t": {}}, "names no input_file"),
        ({"t": {"input_file": "rows.jsonl", "suport_ratio": 1}}, "unknown key 'suport_ratio'; did you mean"),
        ({"t": {"input_file": "rows.jsonl", "support_ratio": "half"}}, "'half' is not a number"),
        ({"t": {"input_file": "rows.jsonl", "max_samples": 0}}, "max_samples is 0"),
        ({"t": {"input_file": "rows.jsonl", "query_ratio": 0.2}}, "query_ratio without support_ratio"),
        (
            {"t": {"input_file": "rows.jsonl", "grader": "maths"}},
            "unknown grader 'maths'; did you",
        ),
        ({"t": {"input_file": "rows.jsonl"}}, r"neither .*rows.jsonl nor rows.jsonl is there"),
    ],
)
def test_damaged_task_lists(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        custom_tasks(tmp_path, content)


# The hub


def test_without_a_local_copy_and_offline_one_line_says_so() -> None:
    with pytest.raises(InputError, match="cannot load 'EleutherAI/hendrycks_math/algebra/train'"):
        math.tasks(Request(), NoOptions())


def test_hub_records_are_read_like_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(repository: str, subset: str | None, split: str) -> datasets.Dataset:
        asked.append((repository, subset, split))
        if repository == "EleutherAI/hendrycks_math":
            record = problem(1, type="Prealgebra")
            del record["subject"]
            return datasets.Dataset.from_list([record, problem(2, solution="none", type="Algebra")])
        features = {
            "text": datasets.Value("string"),
            "intent": datasets.ClassLabel(names=["oos", "pto_used"]),
        }
        return datasets.Dataset.from_dict(
            {"text": [f"{split} {n}" for n in range(4)], "intent": [1, 1, 1, 0]},
            features=datasets.Features(features),
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = math.tasks(Request(), NoOptions())
    assert len(task(source, "prealgebra").pool) == 7
    assert ("EleutherAI/hendrycks_math", "geometry", "test") in asked
    assert str(source.problems[0]).startswith(
        "EleutherAI/hendrycks_math/algebra/train, row 2: no boxed answer"
    )
    pool, test = clinc150._read(None, clinc150._domains(None), [])
    assert pool["pto_used"] == [f"{split} {n}" for split in ("train", "validation") for n in range(3)]
    assert test["pto_used"] == ["test 0", "test 1", "test 2"]


def test_hub_pictures_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("question", "topic", "hint", "solution")},
            "image": datasets.Image(),
            "choices": datasets.List(datasets.Value("string")),
            "answer": datasets.Value("int64"),
        }
    )
    record = {
        "question": "Hot?",
        "topic": "physics",
        "hint": "",
        "solution": "",
        "choices": ["no", "yes"],
        "answer": 0,
    }
    table = datasets.Dataset.from_list(
        [{**record, "image": None}, {**record, "image": {"bytes": b"no picture at all", "path": None}}],
        features=features,
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    physics = math_science.tasks(Request(tasks=("physics",)), NoOptions()).tasks[0]
    assert (len(physics.pool), len(physics.test or ()), physics.left_out) == (2, 1, {"needs a picture": 3})


# Choosing tasks


def test_choosing() -> None:
    available = ("a", "b", "c", "e")
    assert choose(available, Request(), ("e",)) == {"a": "train", "b": "train", "c": "train", "e": "held_out"}
    assert choose(available, Request(tasks=("b",), holdout=("a",))) == {"a": "held_out", "b": "train"}
    assert choose(available, Request(skip=("b", "e"), validation=("c",))) == {"a": "train", "c": "validation"}
    assert choose(available, Request(tasks=("e",), validation=("e",)), ("e",)) == {"e": "validation"}


def test_the_usual_tasks_are_kept_out_where_a_request_names_none() -> None:
    available, usual = ("a", "b", "c", "d"), (("a", "b", "x"), ("c",))
    plain = with_usual(Request(), available, *usual)
    assert (plain.holdout, plain.validation) == (("a", "b"), ("c",))
    named = with_usual(Request(holdout=("d",)), available, *usual)
    assert (named.holdout, named.validation) == (("d",), ("c",))
    few = with_usual(Request(tasks=("b", "c", "d"), skip=("c",), validation=("b",)), available, *usual)
    assert (few.holdout, few.validation) == ((), ("b",))
    taken = with_usual(Request(holdout=("c",)), available, *usual)
    assert taken.validation == ()
