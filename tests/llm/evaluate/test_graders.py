"""Each grader against its definition, and the grading pool against hanging, dying and threads."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.errors import InnerloopError, InputError
from innerloop.llm.evaluate import grading_pool
from innerloop.llm.evaluate.graders import (
    Grade,
    GraderKind,
    chosen_letter,
    grade,
    grade_all,
    last_box,
    normalise,
)
from innerloop.llm.evaluate.grading_pool import GradingPool

RIGHT, STRICT, WRONG = Grade(True, False), Grade(True, True), Grade(False, False)
# One multiplication of long integers, which no signal handler and no other thread of Python can break off.
HANGING = r"\boxed{9^{9^{9^9}}}"


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(processes=2, seconds=20) as shared:
        yield shared


# response, answer, grade
MATH_CASES = [
    (r"so we get \boxed{\frac{1}{2}}.", r"\frac{1}{2}", STRICT),
    (r"so we get \boxed{ \frac{1}{2} }.", r"\frac{1}{2}", STRICT),
    (r"\boxed{0.5}", r"\frac{1}{2}", RIGHT),
    (r"\boxed{\dfrac12}", r"\frac{1}{2}", RIGHT),
    (r"The answer is $\frac{2}{4}$.", r"\frac{1}{2}", RIGHT),
    (r"The answer is 1/2", r"\frac{1}{2}", RIGHT),
    (r"\boxed{\frac{1}{3}}", r"\frac{1}{2}", WRONG),
    (r"\boxed{x^2 + 2x + 1}", r"(x+1)^2", RIGHT),
    (r"\boxed{x^2 + 2x + 2}", r"(x+1)^2", WRONG),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", RIGHT),
    (r"\boxed{(2, 1]}", r"(1, 2]", WRONG),
    (r"\boxed{\{3, 1, 2\}}", r"\{1,2,3\}", RIGHT),
    (r"\boxed{\{1,2\}}", r"\{1,2,3\}", WRONG),
    (r"$x = 5$", "5", RIGHT),
    (r"\boxed{1,234}", "1234", RIGHT),
    (r"\boxed{20\%}", r"20\%", STRICT),
    (r"\boxed{10} dollars", "10", STRICT),
    (r"\boxed{\text{Friday}}", r"\text{Friday}", STRICT),
    (r"either \boxed{\frac{\pi}{4}} or \boxed{\frac{5\pi}{4}}", r"\frac{5\pi}{4}", STRICT),
    (r"first \boxed{3}, then corrected: \boxed{4}", "4", STRICT),
    (r"\boxed{4} and then babble \boxed{", "4", STRICT),
    ("4", "4", STRICT),
    ("I do not know", "4", WRONG),
    ("", "4", WRONG),
    (r"\boxed{}", "4", WRONG),
    (r"\boxed{\frac{1}{0}}", "4", WRONG),
    ("\\boxed{4\ud800}", "5", WRONG),
    (r"our answer is $\boxed 9$.", "9", STRICT),
    (r"\fbox{8} and \fboxed{9}", "9", STRICT),
    (r"\boxed{6}", r"$6$", RIGHT),
    (r"\boxed{6}", r"\boxed{6}", STRICT),
    (r"\boxed{18.90}", r"\$18.90", RIGHT),
]

NUMBER_CASES = [
    ("#### 18", "18", STRICT),
    ("9 * 2 = 18\n#### 18", "9 * 2 = 18\n#### 18", STRICT),
    ("9 * 2 = 18\n#### 18", "#### 18", STRICT),
    ("####18", "18", STRICT),
    ("#### $18.00", "18", STRICT),
    ("#### 17\nso it is 18", "18", RIGHT),
    ("#### 18\nQuestion: 5 apples", "18", STRICT),
    ("#### none, so 18", "18", RIGHT),
    ("She makes 18 dollars.", "18", RIGHT),
    ("She makes $18.", "18", RIGHT),
    (r"She makes \$18.00", "18", RIGHT),
    ("£1,234.50 in all", "1234.5", RIGHT),
    ("1,234,567", "1234567", RIGHT),
    ("1,234", "1", WRONG),
    ("1, 2, 3", "3", RIGHT),
    ("1,2,3", "3", RIGHT),
    ("The loss is -5", "-5", RIGHT),
    ("The loss is −5", "-5", RIGHT),
    ("The loss is -$5", "-5", RIGHT),
    (r"The loss is -\$5", "-5", RIGHT),
    ("The loss is $-5", "-5", RIGHT),
    ("The loss is 5", "-5", WRONG),
    ("8-3", "3", RIGHT),
    ("8 - 3 = 5", "5", RIGHT),
    ("(8)-3", "3", RIGHT),
    ("a follow-up of 10-12 days", "12", RIGHT),
    ("0.1 + 0.2 = 0.3", ".3", RIGHT),
    ("-.5", "-0.5", RIGHT),
    ("Rs.500", "500", RIGHT),
    ("25 cm^2", "25", RIGHT),
    ("the area is 25 cm^{2}.", "25", RIGHT),
    ("10^12", "10", RIGHT),
    ("50%", "50", RIGHT),
    ("007", "7", RIGHT),
    ("18 apples for 3 children", "18", WRONG),
    ("0.30000000000000004", "0.3", WRONG),
    ("123456789012345678901", "123456789012345678902", WRONG),
    ("eighteen", "18", WRONG),
    ("", "18", WRONG),
]

CHOICE_CASES = [
    ("B", "B", STRICT),
    (" B\n", "B", STRICT),
    ("b", "B", RIGHT),
    ("(B)", "B", RIGHT),
    ("B.", "B", RIGHT),
    ("**B**", "B", RIGHT),
    ("B) Paris", "B", RIGHT),
    ("B: Paris, not A or C", "B", RIGHT),
    ("Answer: B", "B", RIGHT),
    ("answer: b", "B", RIGHT),
    ("**Answer:** (B)", "B", RIGHT),
    ("The answer is (B).", "B", RIGHT),
    ("The correct answer is option B, since A is wrong.", "B", RIGHT),
    ("The answer would be A. No: the answer is B.", "B", RIGHT),
    (r"The answer is $\boxed{B}$", "B", RIGHT),
    (r"\boxed{\text{B}}, unlike C", "B", RIGHT),
    ("B because A is wrong", "B", RIGHT),
    ("A because B is wrong", "A", RIGHT),
    ("A dog is a mammal, so B", "B", RIGHT),
    ("The answer is a dog, so I choose (B), as in A", "B", RIGHT),
    ("Neither A nor C fits, which leaves B", "B", RIGHT),
    ("I think it is B", "B", RIGHT),
    ("It isn't A; it's B's twin C", "C", RIGHT),
    ("A", "B", WRONG),
    ("Banana", "B", WRONG),
    ("", "B", WRONG),
    ("The answer is Banana", "B", WRONG),
    ("B", "(B)", RIGHT),
    ("(B)", "(B)", STRICT),
    ("B", "b", RIGHT),
]

EXACT_CASES = [
    ("Paris", "Paris", STRICT),
    (" Paris\n", "Paris", STRICT),
    ("paris.", "Paris", RIGHT),
    ("“PARIS”", "Paris", RIGHT),
    ("New\n York", "new york", RIGHT),
    ("ﬁsh", "fish", RIGHT),
    ("straße", "STRASSE", RIGHT),
    ("it's", "its", RIGHT),
    ("5.", "5", RIGHT),
    ("−5", "-5", RIGHT),
    ("-5", "5", WRONG),
    ("-.5", ".5", WRONG),
    ("1.5", "15", WRONG),
    ("3:45", "345", WRONG),
    ("(5)", "5", RIGHT),
    ("-", "+", WRONG),
    ("!", "?", WRONG),
    ("Paris, France", "Paris", WRONG),
    ("", "Paris", WRONG),
]


@pytest.mark.parametrize(("response", "answer", "expected"), NUMBER_CASES)
def test_number(response: str, answer: str, expected: Grade) -> None:
    assert grade("number", response, answer) == expected


@pytest.mark.parametrize(("response", "answer", "expected"), CHOICE_CASES)
def test_choice(response: str, answer: str, expected: Grade) -> None:
    assert grade("choice", response, answer) == expected


@pytest.mark.parametrize(("response", "answer", "expected"), EXACT_CASES)
def test_exact(response: str, answer: str, expected: Grade) -> None:
    assert grade("exact", response, answer) == expected


def test_math(pool: GradingPool) -> None:
    responses, answers, expected = zip(*MATH_CASES, strict=True)
    grades = grade_all("math", responses, answers, pool)
    table = list(zip(responses, answers, strict=True))
    assert dict(zip(table, grades, strict=True)) == dict(zip(table, expected, strict=True))


def test_math_opens_a_pool_of_its_own_for_one_call() -> None:
    assert grade("math", r"\boxed{0.5}", r"\frac{1}{2}") == RIGHT


@given(st.sampled_from(["number", "exact"]), st.text())
def test_any_text_gets_a_grade(kind: GraderKind, response: str) -> None:
    result = grade(kind, response, "42")
    assert result.correct or not result.strict


@given(st.text())
def test_a_choice_is_an_upper_case_letter_of_the_response(response: str) -> None:
    letter = chosen_letter(response)
    assert letter is None or (letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" and letter in response.upper())


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_any_number_is_read_back_from_every_way_of_writing_it(value: object) -> None:
    for written in (f"#### {value}", f"#### {value:,}", f"#### ${value:,}"):
        assert grade("number", written, str(value)) == STRICT
    for written in (f"{value}", f"so {value:,} it is.", f"1 + 2 = ${value}."):
        assert grade("number", written, str(value)).correct


@given(st.text(st.characters(codec="ascii", exclude_characters="-.,:/0123456789")))
def test_exact_ignores_case_punctuation_and_spacing(text: str) -> None:
    word = "answer " + text
    assert grade("exact", f"  “{word.upper()}”!\t", word).correct


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.recursive(st.text("ab+ ", min_size=1), lambda inner: inner.map(lambda text: f"x{{{text}}}y")))
def test_the_last_box_is_found_whole(inside: str) -> None:
    assert last_box(f"\\boxed{{1}} and \\boxed{{{inside}}} end") == inside


@given(st.sampled_from(get_args(GraderKind)), st.sampled_from(["4", "B", "1,000"]))
def test_the_answer_itself_is_strictly_correct(kind: GraderKind, answer: str) -> None:
    assert grade(kind, f" {answer}\n", answer) == STRICT


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [("number", "none", "has no number"), ("choice", "Paris", "is not a letter")],
)
def test_a_reference_answer_of_the_wrong_kind_is_refused(kind: GraderKind, answer: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grade(kind, "some response", answer)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no grader 'regex'; there are: math, number, choice, exact"):
        grade("regex", "4", "4")  # type: ignore[arg-type]


def test_responses_and_answers_must_match_in_number() -> None:
    with pytest.raises(ValueError, match="shorter"):
        grade_all("exact", ["a", "b"], ["a"])


def test_no_rows_need_no_process() -> None:
    assert grade_all("math", [], []) == []


def math_rows(data_root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (data_root / "math" / "test.jsonl").open(encoding="utf-8")]


@pytest.mark.data
def test_every_solution_of_math_is_correct_for_its_own_answer(pool: GradingPool, data_root: Path) -> None:
    rows = math_rows(data_root)[::10]
    grades = grade_all("math", [row["solution"] for row in rows], [row["answer"] for row in rows], pool)
    assert [row["id"] for row, mark in zip(rows, grades, strict=True) if not mark.strict] == []


@pytest.mark.data
def test_math_answers_equal_themselves_however_they_are_marked_and_no_other(
    pool: GradingPool, data_root: Path
) -> None:
    answers = [row["answer"] for row in math_rows(data_root)[::50]]
    marked = [f"The final answer is ${answer}$." for answer in answers]
    assert [mark.correct for mark in grade_all("math", marked, answers, pool)].count(False) <= 2
    shifted = grade_all("math", [*marked[1:], marked[0]], answers, pool)
    assert [mark.correct for mark in shifted].count(True) <= 10


def children_of(parent: int) -> set[int]:
    """The process ids of the grading children of a process."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True)
    return {int(pid) for pid in listing.stdout.split() if is_grading(int(pid))}


def is_grading(pid: int) -> bool:
    command = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
    return "grading_worker" in command.stdout


def gone(pid: int, within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not is_grading(pid):
            return True
        time.sleep(0.05)
    return False


def test_a_hanging_expression_is_wrong_and_costs_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with GradingPool(processes=1, seconds=3.0) as pool, caplog.at_level(logging.WARNING):
        grades = grade_all("math", [r"\boxed{2.0}", HANGING, r"\boxed{3.0}"], ["2", "2", "3"], pool)
        assert grades == [RIGHT, WRONG, RIGHT]
    assert "1 of 3 answers could not be compared within 3 s" in caplog.text


def test_a_killed_child_is_replaced() -> None:
    before = children_of(os.getpid())
    with GradingPool(processes=1) as pool:
        assert pool.compare([("$1$", "$1$")]) == [True]
        (child,) = children_of(os.getpid()) - before
        os.kill(child, signal.SIGKILL)
        assert pool.compare([("$1$", "$1$")]) == [False]
        assert pool.compare([("$1$", "$1$")]) == [True]


def test_a_pool_works_off_the_main_thread_and_for_several_threads_at_once() -> None:
    found: list[list[Grade]] = []
    with GradingPool(processes=2) as pool:

        def work() -> None:
            found.append(grade_all("math", [r"\boxed{0.5}", r"\boxed{0.6}"], [r"\frac12"] * 2, pool))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[RIGHT, WRONG]] * 3


def test_closing_leaves_no_process() -> None:
    before = children_of(os.getpid())
    with GradingPool(processes=2) as pool:
        pool.compare([("$1$", "$1$")] * 4)
        assert children_of(os.getpid()) - before
    assert children_of(os.getpid()) == before


def test_children_end_with_a_killed_parent_even_while_they_hang() -> None:
    program = (
        "from innerloop.llm.evaluate.grading_pool import GradingPool\n"
        "pool = GradingPool(processes=1, seconds=3.0)\n"
        "pool.compare([('$1$', '$1$')])\n"
        "print('warm', flush=True)\n"
        f"pool.compare([('$1$', {HANGING!r})])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "warm\n"
    (child,) = children_of(parent.pid)
    time.sleep(0.5)
    parent.kill()
    parent.communicate()
    assert gone(child)


def test_an_interrupt_of_the_process_group_spares_the_children() -> None:
    before = children_of(os.getpid())
    with GradingPool(processes=1) as pool:
        pool.compare([("$1$", "$1$")])
        (child,) = children_of(os.getpid()) - before
        assert os.getpgid(child) != os.getpgid(0)


def test_a_child_that_cannot_start_is_an_error_not_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("raise SystemExit(7)")
    monkeypatch.setattr(grading_pool, "WORKER", broken)
    with GradingPool(processes=1) as pool, pytest.raises(InnerloopError, match="exit code 7"):
        pool.compare([("$1$", "$1$")])


@pytest.mark.parametrize(("processes", "seconds"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_pool_without_processes_or_time_is_refused(processes: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="needs a process and time"):
        GradingPool(processes, seconds)
