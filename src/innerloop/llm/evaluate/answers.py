"""Reading references and giving answers in one go, for several adaptations of a model at once.

Under teacher forcing the model reads prompt and reference together. Up to its first token that is not the
likeliest one a reference is what greedy decoding would have given, so an answer goes on from there, with the
keys and values just computed, instead of being begun anew. The rows of several runs, each with an adapter of
its own, are then decoded in one batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from innerloop.core.learner import Learner
from innerloop.core.params import Params
from innerloop.llm.attention import FLASH
from innerloop.llm.data.tokens import TokenizedRow
from innerloop.llm.decoding import (
    Begun,
    KeysAndValues,
    continue_begun,
    keeps_whole_rows,
    keys_and_values,
)
from innerloop.llm.generate import check_room, generate_ids, stop_ids
from innerloop.llm.loss import ResponseScores, score_responses
from innerloop.llm.model import LoadedModel
from innerloop.llm.own_adapters import OwnAdapters, has_plain_adapters
from innerloop.llm.tasks import Batcher

Result = TypeVar("Result")

ROWS_READ = 16
ROWS_DECODED, TOKENS_DECODED = 64, 16384


@dataclass(frozen=True)
class Question:
    """A test row as the model sees it.

    Args:
        tokens: prompt and reference.
        prompt: the prompt's ids alone, where generation starts.
        room: tokens an answer may have.
    """

    tokens: TokenizedRow
    prompt: tuple[int, ...]
    room: int

    @property
    def reference(self) -> tuple[int, ...]:
        """The ids of the reference answer."""
        return self.tokens.input_ids[-self.tokens.target_count :]

    @property
    def is_whole(self) -> bool:
        """Whether the tokens are the prompt and after it the reference, and nothing was cut off."""
        return self.tokens.input_ids == self.prompt + self.reference


@dataclass(frozen=True)
class Reply:
    """What the model makes of a question.

    Args:
        loss: summed cross-entropy of the reference's tokens, in nats.
        correct: how many of them are the most likely one.
        targets: how many there are.
        answer: ids of the greedy answer without its stop token; none where it is the reference itself.
    """

    loss: float
    correct: float
    targets: float
    answer: tuple[int, ...] | None


@dataclass(frozen=True)
class Respondent:
    """A model that is asked, at one or several points of its adapted parameters.

    Args:
        loaded: in evaluation mode.
        batcher: makes its batches.
        learner: lends it a point; none, and it is asked as it is.
    """

    loaded: LoadedModel
    batcher: Batcher
    learner: Learner | None = None

    def at(self, point: Params, body: Callable[[], Result]) -> Result:
        """The result of a function that uses the model while it holds a point."""
        return body() if self.learner is None else self.learner.run_at(point, body)


def replies(asked: Respondent, points: Sequence[Params], questions: Sequence[Question]) -> list[list[Reply]]:
    """The replies of the model at each of several points, in the order of the questions.

    Args:
        asked: the model.
        points: sets of its adapted parameters, at least one.
        questions: at least one.
    """
    found: list[list[Reply | None]] = [[None] * len(questions) for _ in points]
    left = sorted(range(len(questions)), key=lambda i: len(questions[i].tokens.input_ids))
    while left:
        # Rows of like length together, no more than the cache of all the points' answers has room for.
        longest = questions[left[-1]]
        tokens = len(points) * (len(longest.tokens.input_ids) + longest.room)
        together = min(ROWS_READ, ROWS_DECODED // len(points), TOKENS_DECODED // tokens)
        places = [left.pop() for _ in range(min(max(together, 1), len(left)))]
        columns = _together(asked, points, [questions[i] for i in places])
        for replied, column in zip(found, columns, strict=True):
            for place, reply in zip(places, column, strict=True):
                replied[place] = reply
    return [[reply for reply in replied if reply is not None] for replied in found]


@dataclass
class _Draft:
    """An answer as far as it is known from reading the reference.

    Args:
        answer: its ids without a stop token; none where it is the reference itself.
        rest: where to go on from, unless it is whole.
    """

    answer: list[int] | None
    rest: Begun | None = None


def _together(
    asked: Respondent, points: Sequence[Params], questions: Sequence[Question]
) -> list[list[Reply]]:
    stops = stop_ids(asked.loaded.model, asked.loaded.tokenizer)
    read = [asked.at(point, lambda: _read(asked, questions, stops)) for point in points]
    _continue(asked, points, [drafts for _, drafts in read], stops)
    return [
        [
            Reply(loss, correct, targets, None if draft.answer is None else tuple(draft.answer))
            for loss, correct, targets, draft in zip(
                scores.loss.tolist(), scores.correct.tolist(), scores.targets.tolist(), drafts, strict=True
            )
        ]
        for scores, drafts in read
    ]


def _read(
    asked: Respondent, questions: Sequence[Question], stops: frozenset[int]
) -> tuple[ResponseScores, list[_Draft]]:
    """Scores the references, and gives what is known of the answers by that."""
    module = asked.loaded.model
    keeps = keeps_whole_rows(module) and module.config._attn_implementation not in FLASH
    cache = DynamicCache(config=module.config.get_text_config()) if keeps else None
    rows = [question.tokens for question in questions]
    batch = asked.batcher.in_order(rows)
    scores = score_responses(module, batch, cache)
    drafts: list[_Draft] = []
    unfinished: list[int] = []
    anew: list[int] = []
    for index, (question, likeliest) in enumerate(zip(questions, scores.likeliest, strict=True)):
        answer = _agreed(question, likeliest, stops)
        if answer is None or answer[-1] in stops:
            answer = None if answer is None else answer[:-1]
        elif not question.is_whole or cache is None:
            anew.append(index)
        elif len(answer) < question.room:
            unfinished.append(index)
        drafts.append(_Draft(answer))
    if cache is not None and unfinished:
        check_room(module, [questions[index].prompt for index in unfinished], questions[0].room)
        known = _keys_values(asked, cache, rows, int(batch.shared), unfinished)
        for index, kept in zip(unfinished, known, strict=True):
            answer, question = drafts[index].answer or [], questions[index]
            length = len(question.prompt) + len(answer) - 1
            read = tuple((keys[:, :length], values[:, :length]) for keys, values in kept)
            drafts[index].rest = Begun(read, answer[-1], question.room - len(answer))
    if anew:
        prompts = [questions[index].prompt for index in anew]
        for index, ids in zip(anew, generate_ids(module, prompts, stops, questions[0].room), strict=True):
            drafts[index].answer = ids
    return scores, drafts


def _agreed(question: Question, likeliest: tuple[int, ...], stops: frozenset[int]) -> list[int] | None:
    """The greedy answer up to and with its first token that the reference has not, or a stop token, or to its
    longest; none where it is the reference to the end."""
    if likeliest == question.reference:
        return None
    answer: list[int] = []
    for token, wanted in zip(likeliest[: question.room], question.reference, strict=False):
        answer.append(token)
        if token in stops or token != wanted:
            break
    return answer


def _keys_values(
    asked: Respondent, cache: Cache, rows: Sequence[TokenizedRow], shared: int, chosen: Sequence[int]
) -> list[KeysAndValues]:
    """What all layers keep of the chosen rows. Frozen layers did not run if their states were known."""
    prefix, below = asked.batcher.prefix, 0
    lower: dict[TokenizedRow, KeysAndValues] = {}
    if prefix is not None:
        lower = prefix.keys_values([rows[index] for index in chosen])
        below = len(next(iter(lower.values())))
    upper = [
        [part.transpose(0, 1) for part in _by_row(tensor.transpose(1, 2), rows, shared)]
        for tensor in keys_and_values(cache.layers[below:])
    ]
    return [
        (
            *lower.get(rows[index], ()),
            *((k[index], v[index]) for k, v in zip(upper[::2], upper[1::2], strict=True)),
        )
        for index in chosen
    ]


def _by_row(tensor: Tensor, rows: Sequence[TokenizedRow], shared: int) -> list[Tensor]:
    """The rows' own parts, ``(n, ...)`` each, of what a model made of a batch, ``(B, L, ...)`` or packed with
    tokens that only the first row holds."""
    if len(tensor) > 1:
        return [part[: len(row.input_ids)] for part, row in zip(tensor, rows, strict=True)]
    lengths = [len(row.input_ids) - (shared if index else 0) for index, row in enumerate(rows)]
    first, *others = torch.split(tensor[0], lengths)
    return [first, *(torch.cat([first[:shared], row]) if shared else row for row in others)]


def _continue(
    asked: Respondent, points: Sequence[Params], drafts: Sequence[Sequence[_Draft]], stops: frozenset[int]
) -> None:
    """Completes the drafts, those of all points in one batch if each row can have an adapter of its own."""
    module = asked.loaded.model
    rest = [
        (point, draft) for point, column in enumerate(drafts) for draft in column if draft.rest is not None
    ]
    if not rest:
        return
    begun = [draft.rest for _, draft in rest if draft.rest is not None]
    if len(points) > 1 and has_plain_adapters(module, points[0]):
        own = OwnAdapters(module, points, [point for point, _ in rest])
        with own.in_use():
            found = continue_begun(module, begun, stops, own.now_live)
    else:
        found = []
        for number, point in enumerate(points):
            its = [row for (of, _), row in zip(rest, begun, strict=True) if of == number]
            if its:
                found += asked.at(point, partial(continue_begun, module, its, stops))
    for (_, draft), ids in zip(rest, found, strict=True):
        draft.answer = [*(draft.answer or []), *ids]
