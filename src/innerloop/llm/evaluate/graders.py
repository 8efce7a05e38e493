"""Whether a generated response gives the reference answer: one rule for each kind of answer.

Here are the rules. Mathematical equivalence is worked out by math-verify in the child processes of
``grading_pool``; which kind a task has is said by its preset and stands in the manifest.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

from innerloop.core.errors import InputError
from innerloop.llm.data.presets.base import Grader as GraderKind
from innerloop.llm.evaluate.grading_pool import GradingPool

__all__ = ["Grade", "GraderKind", "grade", "grade_all"]


@dataclass(frozen=True)
class Grade:
    """One response's marks. A strictly correct response is also correct.

    Args:
        correct: it gives the reference answer, by the rule of its kind.
        strict: it gives the reference answer to the letter, in the place where the kind expects it.
    """

    correct: bool
    strict: bool


def grade(kind: GraderKind, response: str, answer: str) -> Grade:
    """Grades one response; ``grade_all`` says how. For many, that is the faster way."""
    return grade_all(kind, [response], [answer])[0]


def grade_all(
    kind: GraderKind, responses: Sequence[str], answers: Sequence[str], pool: GradingPool | None = None
) -> list[Grade]:
    """Grades every response against its reference answer.

    ==========  ==========================================  ===========================================
    kind        correct                                     strict
    ==========  ==========================================  ===========================================
    ``math``    the final answer is mathematically equal    the last ``\\boxed`` holds the answer's text
    ``number``  the last number has the same value          the number after ``####`` has the value
    ``choice``  it chooses the same letter                  it is the letter
    ``exact``   the same but for case, punctuation, spaces  the same text
    ==========  ==========================================  ===========================================

    For every kind, a response that equals the answer but for surrounding white space is strictly correct.

    Args:
        kind: the kind of answer.
        responses: what the model generated.
        answers: the reference answer of each; for ``number`` and ``choice`` it may stand in a longer text, as
            ``#### 18`` or ``(B)``.
        pool: does the mathematical comparisons; None opens one for this call, which takes a second or two.

    Returns:
        One grade for each response, in their order.

    Raises:
        InputError: for an unknown kind, or a reference answer that is not of the kind.
    """
    if kind not in get_args(GraderKind):
        raise InputError(f"no grader '{kind}'; there are: {', '.join(get_args(GraderKind))}")
    pairs = list(zip(responses, answers, strict=True))
    if kind == "math":
        return _grade_math(pairs, pool)
    grade_one = _GRADERS[kind]
    return [
        Grade(True, True) if _same_text(response, answer) else grade_one(response, answer)
        for response, answer in pairs
    ]


_BOX = re.compile(r"\\f?boxed(?:\s*(?P<brace>\{)|\s+(?P<bare>[^\s\\{]))")
# An escaped brace, as around a set, is a character of the answer and opens nothing.
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _grade_math(pairs: Sequence[tuple[str, str]], pool: GradingPool | None) -> list[Grade]:
    strict = [_same_text(response, answer) or _same_box(response, answer) for response, answer in pairs]
    # The same text needs no algebra; it also settles answers, such as names, that are no expressions.
    open_pairs = [
        (_as_expression(answer), response)
        for (response, answer), settled in zip(pairs, strict, strict=True)
        if not settled
    ]
    if pool is None:
        with GradingPool() as own:
            verdicts = iter(own.compare(open_pairs))
    else:
        verdicts = iter(pool.compare(open_pairs))
    return [Grade(True, True) if settled else Grade(next(verdicts), False) for settled in strict]


def _as_expression(answer: str) -> str:
    """math-verify sees LaTeX only where ``$`` or ``\\boxed`` marks it."""
    marked = _BOX.search(answer) or re.search(r"(?<!\\)\$", answer)
    return answer if marked else f"${answer}$"


def _same_box(response: str, answer: str) -> bool:
    boxed = last_box(response)
    return boxed is not None and _same_text(boxed, answer)


def last_box(text: str) -> str | None:
    """What the last whole ``\\boxed{...}`` or ``\\boxed 9`` holds, or None if there is none."""
    for box in reversed(list(_BOX.finditer(text))):
        if box["bare"]:
            return box["bare"]
        depth = 0
        for brace in _BRACE.finditer(text, box.start("brace")):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                return text[box.end("brace") : brace.start()]
    return None


_NUMBER = re.compile(
    # Digits after ^ are an exponent, as in "25 cm^2"; they are matched so that they can be left out.
    r"\^\{?-?[0-9.]+"
    # A minus after a word, a number or a bracket takes away or joins; it is no sign.
    r"|(?P<sign>(?<![\w)\]])-)?(?:\\?[$€£¥₹](?P<inner_sign>-)?)?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
)
_MARK = re.compile(r"####\s*")
_MINUS_SIGNS = str.maketrans("−–", "--")


def _grade_number(response: str, answer: str) -> Grade:
    expected = _marked_number(answer)
    if expected is None:
        expected = _last_number(answer)
    if expected is None:
        raise InputError(f"the reference answer '{answer}' has no number; its task needs another grader")
    strict = _marked_number(response) == expected
    return Grade(strict or _last_number(response) == expected, strict)


def _marked_number(text: str) -> Decimal | None:
    """The number right after the first ``####``: what follows an answer may be the model's next question."""
    text = text.translate(_MINUS_SIGNS)
    mark = _MARK.search(text)
    return _value(_NUMBER.match(text, mark.end())) if mark else None


def _last_number(text: str) -> Decimal | None:
    values = map(_value, _NUMBER.finditer(text.translate(_MINUS_SIGNS)))
    return next(reversed([value for value in values if value is not None]), None)


def _value(match: re.Match[str] | None) -> Decimal | None:
    if match is None or match["digits"] is None:
        return None
    size = Decimal(match["digits"].replace(",", ""))
    return -size if match["sign"] or match["inner_sign"] else size


_STATED = re.compile(
    r"\banswer\b(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?[\s:=*_]*(?:(?:option|choice)\s+)?"
    r"(?:\\boxed\s*\{|\\text\s*\{|[(\[*_\"'$])*([A-Za-z])(?![\w'’])",
    re.IGNORECASE,
)
_BOXED_LETTER = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|mathrm|textbf)\s*\{)?\s*\(?([A-Z])\)?\s*\}")
_WHOLE = re.compile(r"\W*([A-Za-z])\W*")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_ALONE = re.compile(r"(?<![\w'’])([A-Z])(?![\w'’])")
# "A cat ..." and "... what I saw": the article and the pronoun are words, not choices; "A because" is one.
_WORD_USE = re.compile(r"(?:[Aa](?!\s+(?:because|since|is|and|or)\b)|[Ii])(?=\s+[a-z])")


def _grade_choice(response: str, answer: str) -> Grade:
    expected = _WHOLE.fullmatch(answer)
    if expected is None:
        raise InputError(f"the reference answer '{answer}' is not a letter; its task needs another grader")
    chosen = chosen_letter(response)
    return Grade(chosen == expected[1].upper(), False)


def chosen_letter(response: str) -> str | None:
    """The upper-case letter that a response chooses, or None.

    In this order: a response that is a letter; the last answer that is stated (``Answer: B``, ``the answer
    is (B)``) or boxed; a letter that opens the response; the last in brackets; the last that stands alone.
    """
    whole = _WHOLE.fullmatch(response)
    if whole:
        return whole[1].upper()
    stated = [*_letters(_STATED, response), *_letters(_BOXED_LETTER, response)]
    if stated:
        return max(stated, key=lambda match: match.start(1))[1].upper()
    alone = _letters(_ALONE, response)
    if alone and not re.search(r"\w", response[: alone[0].start()]):
        return alone[0][1]
    candidates = _letters(_BRACKETED, response) or alone
    return candidates[-1][1] if candidates else None


def _letters(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The pattern's matches whose letter is used as a choice and not as a word."""
    return [match for match in pattern.finditer(text) if not _WORD_USE.match(text, match.start(1))]


# A sign, or a mark inside a number, carries meaning: -5 is not 5, and 1.5 is not 15.
_KEPT = re.compile(r"[-.,:/](?=\.?[0-9])")


def _grade_exact(response: str, answer: str) -> Grade:
    return Grade(normalise(response) == normalise(answer), False)


def normalise(text: str) -> str:
    """A text without regard to case, punctuation and spacing; an answer of punctuation alone keeps it."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_MINUS_SIGNS)
    bare = "".join(
        character
        for position, character in enumerate(folded)
        if not unicodedata.category(character).startswith("P") or _KEPT.match(folded, position)
    )
    return " ".join(bare.split()) or " ".join(folded.split())


def _same_text(response: str, answer: str) -> bool:
    return response.strip() == answer.strip()


_GRADERS: dict[str, Callable[[str, str], Grade]] = {
    "number": _grade_number,
    "choice": _grade_choice,
    "exact": _grade_exact,
}
