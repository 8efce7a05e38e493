"""MATH and the science tasks on small copies of their sources: wording, answers, what is refused."""

import json
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import (
    NoOptions,
)
from innerloop.llm.data.presets import (
    math,
    math_science,
)
from innerloop.llm.data.presets.base import Request, Source
from innerloop.llm.data.rows import RowFault
from llm.data.preparing import lines, problem, reasons, task

BOX = "\\boxed"

# MATH


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (f"{BOX}{{7}}", "7"),
        (f"${BOX}{{\\frac{{1}}{{x^{{2}}}}}}$.", "\\frac{1}{x^{2}}"),
        (f"{BOX}{{1}} or rather {BOX}{{2}}", "2"),
        (f"{BOX}{{\\{{1, 2\\}}}}", "\\{1, 2\\}"),
        (f"{BOX}{{\\left\\{{1\\right.}} of {{x}}", "\\left\\{1\\right."),
        (f"{BOX}{{ 7 }}", "7"),
        (f"{BOX} {{7}}", "7"),
        (f"is ${BOX} 7$ then", "7"),
        (f"is ${BOX}7$ then", "7"),
        ("\\fbox{7}", "7"),
        (f"{BOX}{{}}", None),
        (f"{BOX}{{7", None),
        (BOX, None),
        ("7", None),
    ],
)
def test_the_boxed_answer(solution: str, answer: str | None) -> None:
    assert math.boxed(solution) == answer


def test_math_rows_and_bad_rows(tmp_path: Path) -> None:
    lines(
        tmp_path / "math" / "train.jsonl",
        problem(1),
        problem(2, subject="Counting & Probability"),
        problem(3, solution="It is 3."),
        problem(4, subject="Botany"),
        problem(5, subject=None),
        problem(6, problem=" "),
        problem(7, solution=None),
        "{",
    )
    lines(tmp_path / "math" / "test.jsonl", problem(8, subject="Geometry"))
    for folder in (tmp_path, tmp_path / "math"):
        source = math.tasks(Request(folder), NoOptions())
        (row,) = task(source, "algebra").pool
        assert (row.prompt, row.response, row.answer) == ("What is 1?", f"It is {BOX}{{1}}.", "1")
        assert row.fields == {"level": "Level 3", "subject": "Algebra"}
        assert len(task(source, "counting_and_probability").pool) == 1
        assert source.reserved == ("What is 8?",)
        assert {task.grader for task in source.tasks} == {"math"}
        assert reasons(source) == [
            ("train.jsonl", 3, "no boxed answer"),
            ("train.jsonl", 4, "unknown subject"),
            ("train.jsonl", 5, "wrong type"),
            ("train.jsonl", 6, "empty prompt"),
            ("train.jsonl", 7, "wrong type"),
            ("train.jsonl", 8, "broken JSON"),
        ]
    with pytest.raises(InputError, match=r"neither math/train.jsonl nor train.jsonl is there"):
        math.tasks(Request(tmp_path / "elsewhere"), NoOptions())


# MATH and science


def choice(question: str, answer: object = 1, **more: object) -> dict[str, object]:
    return {"question": question, "choices": ["no", "yes"], "answer": answer, **more}


@pytest.fixture
def science(tmp_path: Path) -> Path:
    levels = [problem(n, level=f"Level {n % 5 + 1}") for n in range(20)]
    lines(tmp_path / "math" / "train.jsonl", *levels, problem(30, subject="Precalculus"))
    lines(tmp_path / "math" / "test.jsonl", problem(40, level="Level 5"), problem(41, subject="Precalculus"))
    lines(
        tmp_path / "gsm8k" / "train.jsonl",
        {"question": "How many?", "answer": "2*617=<<2*617=1234>>1234\n#### 1,234"},
        {"question": "How few?", "answer": "One."},
        {"question": "How few?", "answer": "One.\n####"},
    )
    lines(tmp_path / "gsm8k" / "test.jsonl", {"question": "And now?", "answer": "#### -5"})
    lines(
        tmp_path / "scienceqa" / "text_only_train.jsonl",
        choice("Hard?", topic="physics", solution=" Because. ", explanation="Lecture. Because."),
        choice("Soft?", topic="physics", solution=None, explanation=None),
        choice("Fizzy?", topic="chemistry", solution=None, explanation="It fizzes."),
        choice("Seen?", topic="physics", image={"bytes": "x"}),
        choice("Other?", topic=None),
        choice("Bad?", 2, topic="physics"),
        choice("Bad?", True, topic="physics"),
        {**choice("Bad?", 0, topic="physics"), "choices": ["only"]},
        {**choice("Bad?", 0, topic="physics"), "choices": "no"},
        {**choice("Bad?", 0, topic="physics"), "choices": ["no", ""]},
    )
    lines(tmp_path / "scienceqa" / "text_only_val.jsonl", choice("Warm?", topic="physics"))
    lines(
        tmp_path / "scienceqa" / "text_only_test.jsonl", choice("Cold?", 0, topic="physics", hint="It snows.")
    )
    theorems = [
        {"Question": "Many?", "Answer": [0, 5], "Answer_type": "list of integer", "Picture": None},
        {"Question": "True?", "Answer": False, "Picture": None},
        {"Question": "Seen?", "Answer": 1, "Picture": "images/a.png"},
        {"Question": "Lost?", "Answer": None, "Picture": None},
    ]
    (tmp_path / "theoremqa").mkdir()
    (tmp_path / "theoremqa" / "theoremqa_test.json").write_text(json.dumps(theorems))
    lines(tmp_path / "mmlu_stem" / "dev.jsonl", choice("Dev?", subject="astronomy"))
    lines(tmp_path / "mmlu_stem" / "test.jsonl", choice("Test?", 0, subject="astronomy"))
    return tmp_path


def science_tasks(folder: Path, **request: tuple[str, ...]) -> Source:
    return math_science.tasks(Request(folder, **request), NoOptions())


def test_hard_algebra_leaves_algebra(science: Path) -> None:
    source = science_tasks(science)
    hard, rest = task(source, "hard_algebra"), task(source, "algebra")
    assert (len(hard.pool), len(hard.test or ()), len(rest.pool), len(rest.test or ())) == (4, 1, 16, 0)
    assert {math.level_of(row) for row in hard.pool} == {"Level 5"}
    assert (hard.role, rest.role) == ("held_out", "train")
    assert len(task(science_tasks(science, skip=("hard_algebra",)), "algebra").pool) == 20


def test_calculus_is_precalculus_left_out_of_training(science: Path) -> None:
    assert "calculus" not in {task.name for task in science_tasks(science).tasks}
    for request in (
        {"skip": ("precalculus",)},
        {"tasks": ("algebra", "calculus")},
        {"holdout": ("calculus",)},
    ):
        source = science_tasks(science, **request)
        assert "precalculus" not in {task.name for task in source.tasks}
        assert task(source, "calculus").role == "held_out"
        assert [row.answer for row in task(source, "calculus").test or ()] == ["41"]
    with pytest.raises(InputError, match="'precalculus' under another name"):
        science_tasks(science, tasks=("precalculus", "calculus"))


def test_word_problems(science: Path) -> None:
    source = science_tasks(science, tasks=("word_problems",))
    words = task(source, "word_problems")
    assert [row.answer for row in (*words.pool, *(words.test or ()))] == ["1234", "-5"]
    assert words.pool[0].response.endswith("#### 1,234")
    assert words.grader == "number"
    assert reasons(source) == [("train.jsonl", 2, "no final answer"), ("train.jsonl", 3, "no final answer")]


def test_science_questions(science: Path) -> None:
    source = science_tasks(science, tasks=("physics", "chemistry"))
    physics = task(source, "physics")
    assert [row.prompt for row in physics.pool] == [
        f"{word}?\nA. no\nB. yes" for word in ("Hard", "Soft", "Warm")
    ]
    assert [row.response for row in physics.pool] == ["Because.\nAnswer: B", "Answer: B", "Answer: B"]
    assert [row.prompt for row in physics.test or ()] == ["It snows.\nCold?\nA. no\nB. yes"]
    assert [row.answer for row in physics.test or ()] == ["A"]
    assert task(source, "chemistry").pool[0].response == "It fizzes.\nAnswer: B"
    assert (physics.grader, physics.left_out) == ("choice", {"needs a picture": 1})
    assert [reason for _, _, reason in reasons(source)] == [
        "answer is no choice",
        "answer is no choice",
        "wrong number of choices",
        "wrong type",
        "empty choice",
    ]


def test_theorems_and_mmlu_are_for_evaluation(science: Path) -> None:
    source = science_tasks(science, tasks=("algebra",), holdout=("theoremqa",), validation=("mmlu_stem",))
    theorems, mmlu = task(source, "theoremqa"), task(source, "mmlu_stem")
    assert [row.answer for row in theorems.pool] == ["[0, 5]", "False"]
    assert (theorems.role, theorems.grader, theorems.left_out) == ("held_out", "math", {"needs a picture": 1})
    assert reasons(source) == [("theoremqa_test.json", 4, "null answer")]
    assert [row.prompt for row in mmlu.pool] == ["Dev?\nA. no\nB. yes"]
    assert (mmlu.role, mmlu.grader, len(mmlu.test or ())) == ("validation", "choice", 1)
    assert task(science_tasks(science, tasks=("theoremqa",)), "theoremqa").role == "held_out"


def test_only_the_sources_that_are_needed_are_read(tmp_path: Path, science: Path) -> None:
    (science / "math" / "train.jsonl").unlink()
    science_tasks(science, tasks=("word_problems", "theoremqa"))
    with pytest.raises(InputError, match=r"math/train\.jsonl"):
        science_tasks(science, tasks=("geometry",))


def test_a_choice_of_too_many() -> None:
    with pytest.raises(RowFault, match="wrong number of choices"):
        math_science.choice_row("?", ["x"] * 27, 0, {})
