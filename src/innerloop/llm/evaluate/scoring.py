"""How well a model answers a task's test rows: loss, token accuracy, and graded answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from innerloop.core.params import Params
from innerloop.llm.data.rows import Row
from innerloop.llm.data.tokens import TokenizedRow, decode_answer, tokenize, tokenize_prompt
from innerloop.llm.evaluate.answers import Question, Reply, Respondent, replies
from innerloop.llm.evaluate.graders import GraderKind, grade_all
from innerloop.llm.model import LoadedModel
from innerloop.llm.tasks import Batcher

# What an answer may run past the longest reference before it is cut off, if EOS is to end it.
SPARE_TOKENS = 8


@dataclass(frozen=True)
class TestSet:
    """A task's test rows, tokenised once for all the cells they are used in.

    Args:
        rows: the rows.
        tokens: prompt and response of each.
        prompts: the prompt's ids of each, where generation starts.
        grader: how answers are compared.
        max_new_tokens: tokens a generated answer may have.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    rows: tuple[Row, ...]
    tokens: tuple[TokenizedRow, ...]
    prompts: tuple[tuple[int, ...], ...]
    grader: GraderKind
    max_new_tokens: int


@dataclass(frozen=True)
class Scores:
    """A model's marks on a test set.

    Args:
        accuracy: share of rows whose answer the grader accepts.
        strict_accuracy: share of rows that give the answer to the letter.
        loss: mean cross-entropy over all response tokens, in nats.
        token_accuracy: share of response tokens that are the most likely one, given the true ones before.
        tokens: tokens scored, for the ledger.
    """

    accuracy: float
    strict_accuracy: float
    loss: float
    token_accuracy: float
    tokens: int


def make_test_set(
    rows: Sequence[Row],
    shots: Sequence[Row],
    grader: GraderKind,
    batcher: Batcher,
    max_new_tokens: int | None = None,
) -> TestSet:
    """Tokenises test rows, with shots in front of each as earlier turns if there are any.

    Args:
        rows: the test rows.
        shots: examples for the prompt; empty but for in-context evaluation.
        grader: how answers are compared.
        batcher: tokenises.
        max_new_tokens: tokens a generated answer may have; by default as many as the longest reference,
            and a few more where the model decides when to stop.
    """
    shown = [_with_shots(row, shots) for row in rows]
    tokenizer = batcher.tokenizer
    # In-context prompts grow with the shots; data.max_length is about training rows.
    room = batcher.max_length * (1 + len(shots))
    eos = batcher.append_eos
    tokens = [
        tokenize(row, tokenizer, room, batcher.truncation, last_answer_only=True, append_eos=eos)
        for row in shown
    ]
    if max_new_tokens is None:
        max_new_tokens = max(row.target_count for row in tokens) + (SPARE_TOKENS if eos else 0)
    return TestSet(
        rows=tuple(rows),
        tokens=tuple(tokens),
        prompts=tuple(tokenize_prompt(row, tokenizer, eos) for row in shown),
        grader=grader,
        max_new_tokens=max_new_tokens,
    )


def score(loaded: LoadedModel, tests: TestSet, batcher: Batcher) -> Scores:
    """Scores the model, as it now is, on a test set. See :func:`score_points`.

    The batcher may be another model's: what that one's frozen layers make of the rows is not used.
    """
    (scores,) = score_points(Respondent(loaded, replace(batcher, prefix=None)), [{}], tests)
    return scores


def score_points(asked: Respondent, points: Sequence[Params], tests: TestSet) -> list[Scores]:
    """Scores a model at each of several points, the runs of a cell say, on a test set. Greedy answers.

    A row whose every response token is the most likely one, its end token included, would be generated
    word for word by greedy decoding, so only the other rows are generated.

    Args:
        asked: the model.
        points: sets of its adapted parameters, at least one.
        tests: the rows.
    """
    questions = [
        Question(tokens, prompt, tests.max_new_tokens)
        for tokens, prompt in zip(tests.tokens, tests.prompts, strict=True)
    ]
    return [_scores(column, tests, asked.batcher) for column in replies(asked, points, questions)]


def _scores(column: Sequence[Reply], tests: TestSet, batcher: Batcher) -> Scores:
    responses = [
        row.response if reply.answer is None else decode_answer(reply.answer, batcher.tokenizer)
        for row, reply in zip(tests.rows, column, strict=True)
    ]
    answers = [row.response if row.answer is None else row.answer for row in tests.rows]
    grades = grade_all(tests.grader, responses, answers)
    targets = sum(reply.targets for reply in column)
    return Scores(
        accuracy=sum(grade.correct for grade in grades) / len(grades),
        strict_accuracy=sum(grade.strict for grade in grades) / len(grades),
        loss=sum(reply.loss for reply in column) / targets,
        token_accuracy=sum(reply.correct for reply in column) / targets,
        tokens=sum(len(row.input_ids) for row in tests.tokens),
    )


def _with_shots(row: Row, shots: Sequence[Row]) -> Row:
    if not shots:
        return row
    earlier = tuple(message for shot in shots for message in shot.messages)
    return Row(row.prompt, row.response, (*earlier, *row.messages), row.answer, row.metadata)
