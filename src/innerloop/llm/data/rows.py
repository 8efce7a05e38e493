"""One training example as a ``Row``, and how records of every accepted format become rows.

Formats, tried in this order: the configured prompt and response columns; a ``messages`` chat of one or
several turns; ``question`` and ``answer``; ``prompt`` and ``completion``. A row with a fault is reported with
its file, row number and reason, and skipped, or fatal when strict. Splitting and tokenising live elsewhere.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.llm.data.records import Problem, Record, read_records

logger = logging.getLogger(__name__)

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One example: what is asked, what should be answered, and what a grader compares.

    Args:
        prompt: the text asked; for a chat of several turns, the turns before the last answer (system turns
            left out), separated by a blank line.
        response: the text to learn: the last assistant turn.
        messages: the same example as a chat; it ends with the assistant turn that ``response`` holds.
        answer: what a grader compares with the generated answer; None leaves the grader the response.
        metadata: a JSON object as text. ``label`` in it is the row's class, for drawing shots by class.
    """

    prompt: str
    response: str
    messages: tuple[Message, ...]
    answer: str | None = None
    metadata: str = "{}"

    @property
    def fields(self) -> Mapping[str, object]:
        """The metadata, read."""
        content: Mapping[str, object] = json.loads(self.metadata)
        return content

    @property
    def label(self) -> str | None:
        """The row's class, or None where the task has no classes."""
        value = self.fields.get("label")
        return None if value is None else str(value)


@dataclass(frozen=True)
class RowKeys:
    """The column names of a source. An empty ``messages`` leaves that column unread."""

    prompt: str = "prompt"
    response: str = "response"
    messages: str = "messages"
    answer: str = "answer"


DEFAULT_KEYS = RowKeys()


@dataclass(frozen=True)
class Scan:
    """What a file held: its good rows and the problems of the others."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


class RowFault(ValueError):  # noqa: N818 - it describes a row, and never reaches a user as an exception
    """Why a record is no row; carries the reason and the detail of a ``Problem``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def make_row(
    prompt: str, response: str, answer: str | None = None, metadata: Mapping[str, object] | None = None
) -> Row:
    """Builds the row of a single question and answer.

    Args:
        prompt: the user's text.
        response: the assistant's text.
        answer: what a grader compares.
        metadata: written as JSON with sorted keys, so that equal rows are equal text.

    Raises:
        RowFault: if a text is empty or cannot be written as UTF-8.
    """
    checked_prompt, checked_response = text(prompt, "prompt"), text(response, "response")
    return Row(
        prompt=checked_prompt,
        response=checked_response,
        messages=(Message("user", checked_prompt), Message("assistant", checked_response)),
        answer=None if answer is None else text(answer, "answer"),
        metadata=json_text(metadata or {}),
    )


def scan_rows(path: Path, keys: RowKeys = DEFAULT_KEYS, limit: int = -1) -> Scan:
    """Reads a file, keeping count of what is wrong in it.

    Args:
        path: a parquet, jsonl, json or csv file.
        keys: the column names.
        limit: stop after so many good rows; -1 reads all.

    Raises:
        InputError: if the file cannot be read at all.
    """
    if limit < -1 or limit == 0:
        raise InputError(f"{path}: the number of rows to read is {limit}; it must be positive, or -1 for all")
    rows: list[Row] = []
    problems: list[Problem] = []
    for record in read_records(path):
        if len(rows) == limit:
            break
        if isinstance(record, Problem):
            problems.append(record)
            continue
        try:
            rows.append(parse(record, keys))
        except RowFault as fault:
            problems.append(Problem(path, record.row, fault.reason, fault.detail))
    return Scan(tuple(rows), tuple(problems))


def read_rows(path: Path, keys: RowKeys = DEFAULT_KEYS, limit: int = -1, strict: bool = False) -> list[Row]:
    """Reads the good rows of a file; the others are logged by reason.

    Args:
        path: a parquet, jsonl, json or csv file.
        keys: the column names.
        limit: at most so many rows; -1 reads all.
        strict: whether the first bad row is fatal.

    Raises:
        InputError: if the file cannot be read, has no good row, or is strict and has a bad one.
    """
    scan = scan_rows(path, keys, limit)
    if strict:
        refuse(scan.problems)
    if not scan.rows:
        refuse(scan.problems)
        raise InputError(f"{path}: holds no rows")
    report(scan.problems)
    return list(scan.rows)


def refuse(problems: Sequence[Problem]) -> None:
    """Raises if there are problems.

    Raises:
        InputError: naming the first problem and how many there are.
    """
    if problems:
        more = f" (and {len(problems) - 1} more bad rows)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")


def report(problems: Sequence[Problem]) -> None:
    """Logs how many rows were skipped, by reason, and the first of them."""
    if problems:
        logger.warning("%s; the first: %s", summary(problems), problems[0])


def summary(problems: Iterable[Problem]) -> str:
    """The count of skipped rows by reason, in one line."""
    counts = Counter(problem.reason for problem in problems)
    total = sum(counts.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f"skipped {total} bad row{'s' if total != 1 else ''}: {reasons}"


def parse(record: Record, keys: RowKeys = DEFAULT_KEYS) -> Row:
    """Turns one record into a row.

    Raises:
        RowFault: if it is none; the reason is one of a fixed set.
    """
    fields = record.fields
    present = {name for name, value in fields.items() if value is not None}
    chat = _messages(fields[keys.messages]) if fields.get(keys.messages) not in (None, "") else None
    if {keys.prompt, keys.response} <= present:
        prompt, response = text(fields[keys.prompt], "prompt"), text(fields[keys.response], "response")
        answer = None if keys.response == keys.answer else _answer(fields.get(keys.answer))
    elif chat is not None:
        prompt, response = prompt_of(chat), chat[-1].content
        answer = _answer(fields.get(keys.answer))
    elif {"question", "answer"} <= present:
        prompt, response, answer = (
            text(fields["question"], "prompt"),
            text(fields["answer"], "response"),
            None,
        )
    elif {"prompt", "completion"} <= present:
        prompt, response = text(fields["prompt"], "prompt"), text(fields["completion"], "response")
        answer = _answer(fields.get(keys.answer))
    else:
        raise _absence(fields, keys)
    if chat is None:
        chat = (Message("user", prompt), Message("assistant", response))
    elif chat[-1].content != response or prompt not in (prompt_of(chat), chat[-2].content):
        raise RowFault("messages disagree with prompt and response", "mend one, or leave the messages unread")
    return Row(prompt, response, chat, answer, _metadata(fields.get("metadata")))


def prompt_of(messages: Sequence[Message]) -> str:
    """The prompt of a chat: its turns before the last, system turns left out, a blank line between them."""
    return "\n\n".join(message.content for message in messages[:-1] if message.role != "system")


def text(value: object, name: str) -> str:
    """The value, if it is a text with something in it.

    Raises:
        RowFault: if it is of another type, empty, or cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        raise RowFault("wrong type", f"{name} is {_kind(value)}, not text")
    if not value.strip():
        raise RowFault(f"empty {name}")
    _check_unicode(value, name)
    return value


def json_text(metadata: Mapping[str, object]) -> str:
    """Metadata as JSON text; keys sorted, and what JSON does not know written as text."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, default=str)


def _absence(fields: Mapping[str, object], keys: RowKeys) -> RowFault:
    for name, key in (("prompt", keys.prompt), ("response", keys.response)):
        if key in fields and fields[key] is None:
            return RowFault(f"null {name}", f"column '{key}'")
    for name, key, partner in (
        ("prompt", keys.prompt, keys.response),
        ("response", keys.response, keys.prompt),
    ):
        if partner in fields:
            return RowFault(f"no {name}", f"no column '{key}'; the columns are {_names(fields)}")
    return RowFault("no prompt and response", f"the columns are {_names(fields)}")


def _messages(value: object) -> tuple[Message, ...]:
    if isinstance(value, str):
        value = _json(value)  # a chat in a CSV file
    if not isinstance(value, list):
        raise RowFault("messages are not a list", _kind(value))
    messages = tuple(_message(entry) for entry in value)
    if not messages:
        raise RowFault("messages are empty")
    turns = messages[1:] if messages[0].role == "system" else messages
    if messages[-1].role != "assistant":
        raise RowFault("messages do not end with an assistant turn", f"but with '{messages[-1].role}'")
    if turns[0].role != "user":
        raise RowFault("messages do not begin with a user turn", f"but with '{turns[0].role}'")
    for before, after in pairwise(turns):
        if after.role == "system" or (before.role == after.role == "assistant"):
            raise RowFault("turns out of order", f"'{after.role}' after '{before.role}'")
    return messages


def _message(value: object) -> Message:
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys():
        raise RowFault("a message without role and content", _kind(value))
    if value["role"] not in ROLES:
        raise RowFault("unknown role", f"{value['role']!r}; known are {', '.join(ROLES)}")
    content = value["content"]
    if value["role"] == "system" and content == "":
        return Message("system", "")
    return Message(value["role"], text(content, "message"))


def _answer(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowFault("wrong type", f"answer is {_kind(value)}, not text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowFault("wrong type", f"answer is {value}")
    return text(str(value), "answer")


def _metadata(value: object) -> str:
    if value is None or value == "":
        return "{}"
    if isinstance(value, dict):
        return json_text(value)
    if not isinstance(value, str) or not isinstance(_json(value), dict):
        raise RowFault("metadata is not a JSON object", _kind(value))
    _check_unicode(value, "metadata")
    return value


def _json(value: str) -> object:
    """The value of a JSON text, or None if it is none."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _check_unicode(value: str, name: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowFault("not valid Unicode", f"{name}, at character {error.start + 1}") from error


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _names(fields: Mapping[str, object]) -> str:
    return ", ".join(sorted(map(str, fields))) or "none"
