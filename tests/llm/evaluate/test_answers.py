"""Answers that go on from a reference, of several runs at once: those of plain generation, one by one."""

from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaForCausalLM

from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner
from innerloop.core.params import Params
from innerloop.llm.attention import keep_rows_apart
from innerloop.llm.data.tokens import TokenizedRow
from innerloop.llm.decoding import keeps_whole_rows
from innerloop.llm.evaluate.answers import Question, Reply, Respondent, replies
from innerloop.llm.generate import generate_ids, stop_ids
from innerloop.llm.lora import LoraSpec, attach_lora
from innerloop.llm.loss import response_loss, score_responses
from innerloop.llm.model import LoadedModel
from innerloop.llm.own_adapters import OwnAdapters, has_plain_adapters
from innerloop.llm.prefix import FrozenPrefix
from innerloop.llm.tasks import Batcher
from tiny_llama import tiny_llama, tiny_tokenizer

ROOM, RUNS = 7, 3
TOKENIZER = tiny_tokenizer()
ENDS = [(5, 6, 7, 8), (40, 41), (9,) * 20, (100, 3, 7), (60, 61, 62, 63, 64, 65), (31, 7, 120)]
PROMPTS = [(17, 18, 19, *end) for end in ENDS]  # all begin alike


def sharp_llama() -> LlamaForCausalLM:
    """One whose likeliest tokens are no near ties."""
    base = tiny_llama(layers=3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(4)
    return base


def respondent(kind: str) -> Respondent:
    base = sharp_llama()
    assert kind == "eager" or keep_rows_apart(base)
    if kind == "eager":
        base.set_attn_implementation("eager")
    if kind == "all parameters":
        learner: Learner = InPlaceLearner(base, response_loss)
        loaded, prefix = LoadedModel(base.eval(), TOKENIZER, "tiny", "tiny"), None
    else:
        model = attach_lora(base, LoraSpec(rank=2, layers=(1, 2)), "tiny").eval()
        learner = FunctionalLearner(model, response_loss)
        loaded = LoadedModel(model, TOKENIZER, "tiny", "tiny")
        prefix = FrozenPrefix.of(model, 1 << 22) if kind == "frozen prefix" else None
    packed = kind != "eager"
    batcher = Batcher(TOKENIZER, torch.device("cpu"), packed=packed, sharing=packed, prefix=prefix)
    return Respondent(loaded, batcher, learner)


def points_of(asked: Respondent, count: int = RUNS) -> list[Params]:
    """Points so far apart that they answer differently."""
    assert asked.learner is not None
    made = torch.Generator().manual_seed(1)
    return [
        {
            name: p.detach() + 0.5 * torch.randn(p.shape, dtype=p.dtype, generator=made)
            for name, p in asked.learner.theta.items()
        }
        for _ in range(count)
    ]


def plain(asked: Respondent, point: Params, prompt: Sequence[int]) -> list[int]:
    module = asked.loaded.model
    return asked.at(point, lambda: generate_ids(module, [prompt], stop_ids(module, TOKENIZER), ROOM)[0])


def questions_of(asked: Respondent, point: Params) -> list[Question]:
    """References that agree with this point's own answers for 0, 1, 2, ... tokens."""
    made = []
    for index, prompt in enumerate(PROMPTS):
        reference = plain(asked, point, prompt)[: index + 1]
        if index != len(PROMPTS) - 1 and reference:
            reference[-1] = 3 if reference[-1] != 3 else 4
        reference = (reference or [3]) + [TOKENIZER.eos_token_id]
        mask = (False,) * len(prompt) + (True,) * len(reference)
        made.append(Question(TokenizedRow((*prompt, *reference), mask), prompt, ROOM))
    return made


def assert_as_one_by_one(
    asked: Respondent, points: Sequence[Params], questions: Sequence[Question], got: list[list[Reply]]
) -> None:
    model = asked.loaded.model
    for point, column in zip(points, got, strict=True):
        assert len(column) == len(questions)
        for question, reply in zip(questions, column, strict=True):
            batch = Batcher(TOKENIZER, torch.device("cpu")).in_order([question.tokens])
            alone = asked.at(point, lambda b=batch: score_responses(model, b))  # type: ignore[misc]
            assert reply.loss == pytest.approx(float(alone.loss[0]), rel=1e-6)
            assert (reply.correct, reply.targets) == (alone.correct[0], alone.targets[0])
            if reply.answer is None:
                assert alone.likeliest[0] == question.reference
            else:
                assert list(reply.answer) == plain(asked, point, question.prompt)


@pytest.mark.parametrize("kind", ["eager", "rows apart", "frozen prefix", "all parameters"])
def test_runs_together_answer_as_each_alone(kind: str) -> None:
    asked = respondent(kind)
    points = points_of(asked)
    questions = questions_of(asked, points[0])
    got = replies(asked, points, questions)
    assert_as_one_by_one(asked, points, questions, got)
    answers = [tuple(reply.answer for reply in column) for column in got]
    assert len(set(answers)) > 1, "the runs must differ for this to say anything"


def test_known_prefixes_change_no_second_asking() -> None:
    asked = respondent("frozen prefix")
    points = points_of(asked)
    questions = questions_of(asked, points[1])
    first = replies(asked, points, questions)
    second = replies(asked, points, questions)
    assert [[reply.answer for reply in column] for column in first] == [
        [reply.answer for reply in column] for column in second
    ]
    assert_as_one_by_one(asked, points, questions, second)


def test_cut_rows_are_answered_from_their_whole_prompt() -> None:
    asked = respondent("rows apart")
    (point,) = points_of(asked, 1)
    (question, *_) = questions_of(asked, point)
    tokens = question.tokens
    cut = Question(TokenizedRow(tokens.input_ids[2:], tokens.response_mask[2:]), question.prompt, ROOM)
    assert not cut.is_whole
    ((reply,),) = replies(asked, [point], [cut])
    assert reply.answer is not None
    assert list(reply.answer) == plain(asked, point, question.prompt)


def test_an_answer_of_one_token_needs_no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = respondent("frozen prefix")
    points = points_of(asked)
    questions = [Question(q.tokens, q.prompt, room=1) for q in questions_of(asked, points[0])]
    monkeypatch.setattr("innerloop.llm.evaluate.answers.continue_begun", None)
    got = replies(asked, points, questions)
    for point, column in zip(points, got, strict=True):
        for question, reply in zip(questions, column, strict=True):
            assert reply.answer is None or list(reply.answer) == plain(asked, point, question.prompt)[:1]


def test_rows_with_adapters_of_their_own_are_those_of_each_adapter() -> None:
    asked = respondent("rows apart")
    model, points = asked.loaded.model, points_of(asked)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [5, 6, 7], [20, 21, 22]])
    which = [0, 2, 1, 0]
    own = OwnAdapters(model, points, which)
    for rows in ([0, 1, 2, 3], [1, 3], [2]):
        own.now_live(rows)
        with torch.no_grad(), own.in_use():
            together = model(input_ids=ids[rows]).logits
        for place, row in enumerate(rows):
            with torch.no_grad():
                at = points[which[row]]
                alone = asked.at(at, lambda r=row: model(input_ids=ids[r : r + 1]).logits)  # type: ignore[misc]
            torch.testing.assert_close(together[place], alone[0], rtol=1e-9, atol=1e-11)


def test_only_plain_lora_can_have_adapters_of_its_own() -> None:
    asked = respondent("rows apart")
    assert asked.learner is not None
    theta = dict(asked.learner.theta)
    assert has_plain_adapters(asked.loaded.model, theta)
    assert not has_plain_adapters(asked.loaded.model, {})
    assert not has_plain_adapters(asked.loaded.model, {**theta, "lm_head.weight": torch.zeros(1)})
    assert not has_plain_adapters(sharp_llama(), {"model.norm.weight": torch.zeros(1)})


def test_a_cache_with_windows_is_not_gone_on_from() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
    )
    assert not keeps_whole_rows(MistralForCausalLM(config))
    assert keeps_whole_rows(sharp_llama())
