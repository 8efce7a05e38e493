"""MATH (Hendrycks 2021): seven subjects of competition problems with worked solutions.

The response is the worked solution, the answer the expression in its last box. The source's own test set is
kept whole. ``math_science`` builds on `read_math`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from innerloop.llm.data.catalogue import NoOptions
from innerloop.llm.data.presets.base import Request, Source, SourceTask, choose
from innerloop.llm.data.presets.reading import Collector, Part, find_folder
from innerloop.llm.data.rows import Row, RowFault, make_row, text

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
LICENCE = "MIT"
REPOSITORY = "EleutherAI/hendrycks_math"
BOXES = ("\\boxed", "\\fbox")


@dataclass(frozen=True)
class Problems:
    """The rows of one subject, in the source's own train and test sets."""

    train: tuple[Row, ...]
    test: tuple[Row, ...]

    def only(self, wanted: Callable[[str], bool]) -> "Problems":
        """The rows whose level is wanted."""
        return Problems(
            tuple(row for row in self.train if wanted(level_of(row))),
            tuple(row for row in self.test if wanted(level_of(row))),
        )


def tasks(request: Request, _options: NoOptions) -> Source:
    """Every subject is a task; none is held out unless asked."""
    roles = choose(SUBJECTS, request)
    collector = Collector()
    subjects = read_math(request, collector)
    return Source(
        preset="math",
        origin="MATH (Hendrycks et al. 2021)",
        licence=LICENCE,
        tasks=tuple(
            SourceTask(name, subjects[name].train, "math", role, subjects[name].test)
            for name, role in roles.items()
        ),
        problems=tuple(collector.problems),
        reserved=test_prompts(subjects),
    )


def read_math(request: Request, collector: Collector) -> Mapping[str, Problems]:
    """All seven subjects, from a local ``math`` folder or the hub."""
    folder = find_folder(request, "math", "train.jsonl")
    read = {split: _read_split(split, folder, collector) for split in ("train", "test")}
    return {name: Problems(read["train"][name], read["test"][name]) for name in SUBJECTS}


def test_prompts(subjects: Mapping[str, Problems]) -> tuple[str, ...]:
    """The prompts of every subject's test set, which no task may train on."""
    return tuple(row.prompt for problems in subjects.values() for row in problems.test)


def level_of(row: Row) -> str:
    """The difficulty, ``Level 1`` to ``Level 5``."""
    return str(row.fields.get("level"))


def boxed(solution: str) -> str | None:
    """The content of a solution's last box, or None if it has none, or an empty or unclosed one.

    Args:
        solution: LaTeX; ``\\boxed{...}`` with nested braces, or ``\\boxed 7`` with a bare one.
    """
    start = max(solution.rfind(box) for box in BOXES)
    if start == -1:
        return None
    after = solution[start:].removeprefix(BOXES[0]).removeprefix(BOXES[1]).lstrip(" ")
    content = _in_braces(after) if after.startswith("{") else " ".join(after.split("$")[0].split()[:1])
    return content.strip() or None


def _in_braces(latex: str) -> str:
    """What stands between the brace that the text begins with and the one that closes it, if one does."""
    depth, escaped = 0, False
    for index, character in enumerate(latex):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return latex[1:index]
    return ""


def _read_split(split: str, folder: Path | None, collector: Collector) -> Mapping[str, tuple[Row, ...]]:
    if folder is not None:
        parts = [Part(REPOSITORY, None, split, folder / f"{split}.jsonl")]
    else:
        parts = [Part(REPOSITORY, subject, split) for subject in SUBJECTS]
    rows = [named for part in parts for named in collector.read(part, _parse)]
    return {name: tuple(row for subject, row in rows if subject == name) for name in SUBJECTS}


def _parse(fields: Mapping[str, object]) -> tuple[str, Row]:
    subject = text(fields.get("subject") or fields.get("type"), "subject")
    name = "_".join(subject.lower().replace("&", "and").split())
    if name not in SUBJECTS:
        raise RowFault("unknown subject", subject)
    solution = text(fields.get("solution"), "response")
    answer = boxed(solution)
    if answer is None:
        raise RowFault("no boxed answer", f"the solution ends {solution[-40:]!r}")
    metadata = {key: fields[key] for key in ("id", "level", "subject", "type") if fields.get(key)}
    return name, make_row(text(fields.get("problem"), "prompt"), solution, answer, metadata)
