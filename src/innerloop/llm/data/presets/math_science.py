"""MATH, GSM8K and ScienceQA to train on; hard algebra, calculus, TheoremQA and MMLU to evaluate on.

``hard_algebra`` is MATH algebra of Level 5, which then leaves ``algebra``. ``calculus`` is MATH precalculus
under another name, for when that subject is left out of training. Multiple-choice questions list their
options by letter, and the response ends in a line ``Answer: B``, after the explanation where there is one.
"""

from collections.abc import Callable, Mapping
from functools import partial

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import NoOptions
from innerloop.llm.data.presets.base import Request, Role, Source, SourceTask, choose, letters
from innerloop.llm.data.presets.math import SUBJECTS, Problems, read_math, test_prompts
from innerloop.llm.data.presets.reading import Collector, LeftOut, Part, find_folder
from innerloop.llm.data.records import Problem
from innerloop.llm.data.rows import Row, RowFault, make_row, text

SCIENCE = ("physics", "chemistry")
EVALUATION = ("hard_algebra", "calculus", "theoremqa", "mmlu_stem")
TASKS = (*SUBJECTS, "word_problems", *SCIENCE, *EVALUATION)
FROM_MATH = (*SUBJECTS, "hard_algebra", "calculus")
HARD = "Level 5"
NEEDS_PICTURE = "needs a picture"
LICENCE = "MATH, GSM8K, TheoremQA, MMLU: MIT; ScienceQA: CC BY-NC-SA 4.0"
STEM = (
    "abstract_algebra",
    "astronomy",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "electrical_engineering",
    "elementary_mathematics",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_mathematics",
    "high_school_physics",
    "high_school_statistics",
    "machine_learning",
)


def tasks(request: Request, _options: NoOptions) -> Source:
    """The chosen tasks; only the sources that they need are read.

    Raises:
        InputError: if both ``precalculus`` and ``calculus`` are asked for: they are the same problems.
    """
    roles = _roles(request)
    problems: list[Problem] = []
    made: dict[str, SourceTask] = {}
    reserved: tuple[str, ...] = ()
    if any(name in FROM_MATH for name in roles):
        collector = Collector()
        subjects = read_math(request, collector)
        problems += collector.problems
        reserved = test_prompts(subjects)
        made |= _math_tasks(subjects, roles)
    readers: Mapping[str, Callable[[Request, Role, Collector], SourceTask]] = {
        "word_problems": _word_problems,
        **{topic: partial(_science, topic) for topic in SCIENCE},
        "theoremqa": _theoremqa,
        "mmlu_stem": _mmlu_stem,
    }
    for name, role in roles.items():
        if name in readers:
            collector = Collector()
            made[name] = readers[name](request, role, collector)
            problems += collector.problems
    return Source(
        preset="math-science",
        origin="MATH, GSM8K, ScienceQA, TheoremQA and MMLU, by task",
        licence=LICENCE,
        tasks=tuple(made[name] for name in roles),
        problems=tuple(problems),
        reserved=reserved,
    )


def choice_row(
    question: str,
    choices: object,
    correct: object,
    metadata: Mapping[str, object],
    explanation: str = "",
) -> Row:
    """A multiple-choice question.

    Args:
        question: the text above the options.
        choices: the list of options, 2 to 26.
        correct: the index of the right one.
        metadata: of the row.
        explanation: what the response says before its answer.

    Raises:
        RowFault: if the options are no such list, or none of them is at that index.
    """
    if not isinstance(choices, list):
        raise RowFault("wrong type", "choices are not a list")
    if not 2 <= len(choices) <= 26:
        raise RowFault("wrong number of choices", str(len(choices)))
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct < len(choices):
        raise RowFault("answer is no choice", f"{correct!r} of {len(choices)}")
    names = list(letters(len(choices)))
    options = [f"{name}. {text(choice, 'choice')}" for name, choice in zip(names, choices, strict=True)]
    answer = f"Answer: {names[correct]}"
    response = f"{explanation.strip()}\n{answer}" if explanation else answer
    return make_row("\n".join([question, *options]), response, names[correct], metadata)


def _roles(request: Request) -> dict[str, Role]:
    roles = dict(choose(TASKS, request, EVALUATION))
    if "precalculus" in roles and "calculus" in roles:
        named = {*request.tasks, *request.holdout, *request.validation}
        if {"precalculus", "calculus"} <= named:
            raise InputError("'calculus' is 'precalculus' under another name; prepare one of them")
        del roles["precalculus" if "calculus" in named else "calculus"]
    return roles


def _math_tasks(subjects: Mapping[str, Problems], roles: Mapping[str, Role]) -> dict[str, SourceTask]:
    problems = dict(subjects)
    problems["calculus"] = subjects["precalculus"]
    if "hard_algebra" in roles:
        problems["hard_algebra"] = subjects["algebra"].only(lambda level: level == HARD)
        problems["algebra"] = subjects["algebra"].only(lambda level: level != HARD)
    return {
        name: SourceTask(name, problems[name].train, "math", role, problems[name].test)
        for name, role in roles.items()
        if name in problems
    }


def _word_problems(request: Request, role: Role, collector: Collector) -> SourceTask:
    folder = find_folder(request, "gsm8k", "train.jsonl")
    train, test = (
        collector.read(
            Part("openai/gsm8k", "main", split, folder and folder / f"{split}.jsonl"), _parse_gsm8k
        )
        for split in ("train", "test")
    )
    return SourceTask("word_problems", tuple(train), "number", role, tuple(test))


def _parse_gsm8k(fields: Mapping[str, object]) -> Row:
    solution = text(fields.get("answer"), "response")
    _, mark, number = solution.rpartition("####")
    if not mark or not number.strip():
        raise RowFault("no final answer", "nothing after ####")
    return make_row(text(fields.get("question"), "prompt"), solution, number.strip().replace(",", ""))


def _science(topic: str, request: Request, role: Role, collector: Collector) -> SourceTask:
    folder = find_folder(request, "scienceqa", "text_only_train.jsonl")
    read: dict[str, list[Row]] = {}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        local = folder and folder / f"text_only_{name}.jsonl"
        part = Part("derek-thomas/ScienceQA", None, split, local)
        read[split] = collector.read(part, partial(_parse_scienceqa, topic))
    pool = (*read["train"], *read["validation"])
    return SourceTask(topic, pool, "choice", role, tuple(read["test"]), left_out=collector.left_out)


def _parse_scienceqa(topic: str, fields: Mapping[str, object]) -> Row | None:
    if fields.get("topic") != topic:
        return None
    if fields.get("image") is not None:
        raise LeftOut(NEEDS_PICTURE)
    question = text(fields.get("question"), "prompt")
    hint = fields.get("hint")  # the text-only files have it in the question
    explanation = fields.get("solution") or fields.get("explanation")
    return choice_row(
        f"{hint}\n{question}" if hint else question,
        fields.get("choices"),
        fields.get("answer"),
        _known(fields, "id", "skill", "grade"),
        text(explanation, "explanation") if explanation else "",
    )


def _theoremqa(request: Request, role: Role, collector: Collector) -> SourceTask:
    folder = find_folder(request, "theoremqa", "theoremqa_test.json")
    part = Part("TIGER-Lab/TheoremQA", None, "test", folder and folder / "theoremqa_test.json")
    rows = collector.read(part, _parse_theoremqa)
    return SourceTask("theoremqa", tuple(rows), "math", role, left_out=collector.left_out)


def _parse_theoremqa(fields: Mapping[str, object]) -> Row:
    if fields.get("Picture") is not None:
        raise LeftOut(NEEDS_PICTURE)
    answer = fields.get("Answer")
    if answer is None:
        raise RowFault("null answer")
    metadata = _known(fields, "id", "Answer_type", "field", "theorem")
    return make_row(text(fields.get("Question"), "prompt"), str(answer), str(answer), metadata)


def _mmlu_stem(request: Request, role: Role, collector: Collector) -> SourceTask:
    folder = find_folder(request, "mmlu_stem", "test.jsonl")
    read: dict[str, list[Row]] = {"dev": [], "test": []}
    for split, rows in read.items():
        if folder is not None:
            parts = [Part("cais/mmlu", None, split, folder / f"{split}.jsonl")]
        else:
            parts = [Part("cais/mmlu", subject, split) for subject in STEM]
        for part in parts:
            rows += collector.read(part, _parse_mmlu)
    return SourceTask("mmlu_stem", tuple(read["dev"]), "choice", role, tuple(read["test"]))


def _parse_mmlu(fields: Mapping[str, object]) -> Row:
    question = text(fields.get("question"), "prompt")
    return choice_row(question, fields.get("choices"), fields.get("answer"), _known(fields, "subject"))


def _known(fields: Mapping[str, object], *names: str) -> dict[str, object]:
    """Those of the fields that hold something."""
    return {name: fields[name] for name in names if fields.get(name)}
