"""The loss against its definition: what it trains on, and that cutting or packing a batch changes nothing."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from innerloop.core.learner import FunctionalLearner, VmapLearner
from innerloop.core.task import FixedTask
from innerloop.llm.data.rows import Message, Row
from innerloop.llm.data.tokens import TokenizedRow, collate, tokenize
from innerloop.llm.loss import as_batch, response_loss, score_responses, stack_token_batches
from tiny_llama import tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
MODEL = tiny_llama(dtype=torch.float64)
TOKENIZER = tiny_tokenizer()


def row(prompt: str, response: str) -> TokenizedRow:
    """A question and its answer as tokens."""
    chat = (Message("user", prompt), Message("assistant", response))
    return tokenize(Row(prompt, response, chat), TOKENIZER, 64)


def loss_of(
    rows: Sequence[TokenizedRow], packed: bool = False, micro_tokens: int | None = None
) -> torch.Tensor:
    """The loss as the sum of its pieces'."""
    return torch.stack(
        [response_loss(MODEL, piece) for piece in collate(rows, 0, packed, micro_tokens)]
    ).sum()


def loss_by_hand(rows: Sequence[TokenizedRow]) -> float:
    """The definition: the mean of −log p(token | all before it) over the marked tokens, row by row."""
    terms = []
    for tokens in rows:
        ids = torch.tensor([tokens.input_ids])
        log_probabilities = log_softmax(MODEL(input_ids=ids).logits[0], -1)
        terms += [
            -log_probabilities[place - 1, tokens.input_ids[place]]
            for place, marked in enumerate(tokens.response_mask)
            if marked
        ]
    return float(torch.stack(terms).mean())


ROWS = (row("a?", "yes"), row("a longer question?", "n"), row("b", "a longer answer"), row("c c c", "ok"))


@torch.no_grad()
def test_the_loss_is_its_definition() -> None:
    assert float(loss_of(ROWS)) == pytest.approx(loss_by_hand(ROWS), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(
        st.tuples(st.text("abc ", min_size=1), st.text("xyz", min_size=1)), min_size=1, max_size=5
    ),
    packed=st.booleans(),
    micro_tokens=st.sampled_from([None, 64, 128]),
)
@torch.no_grad()
def test_neither_packing_nor_micro_batching_changes_the_loss(
    texts: list[tuple[str, str]], packed: bool, micro_tokens: int | None
) -> None:
    rows = [row(prompt[:20] + ".", response[:8]) for prompt, response in texts]
    torch.testing.assert_close(loss_of(rows, packed, micro_tokens), loss_of(rows), rtol=1e-6, atol=1e-9)


def test_end_token_receives_gradient_and_last_prompt_token_does_not() -> None:
    tokens = row("question?", "ab")
    assert tokens.input_ids[-1] == TOKENIZER.eos_token_id
    targets = [place for place, marked in enumerate(tokens.response_mask) if marked]
    assert targets == list(range(len(tokens.input_ids) - 3, len(tokens.input_ids)))
    hidden, gradient = hidden_gradients(tokens)
    head = MODEL.lm_head.weight.detach()
    for place in range(len(tokens.input_ids)):
        expected = torch.zeros_like(hidden[place])
        if place + 1 in targets:
            # d(-log softmax)/d hidden = (p - onehot(next token)) W, shared out over the targets.
            pull = torch.softmax(head @ hidden[place], 0)
            pull[tokens.input_ids[place + 1]] -= 1
            expected = pull @ head / len(targets)
            assert expected.abs().sum() > 0
        torch.testing.assert_close(gradient[place], expected, rtol=1e-5, atol=1e-9)


def test_user_turns_of_a_chat_are_masked_and_every_answer_is_learned() -> None:
    chat = (
        Message("user", "q1"),
        Message("assistant", "a1"),
        Message("user", "q2"),
        Message("assistant", "a2"),
    )
    tokens = tokenize(Row("q1\n\nq2", "a2", chat), TOKENIZER, 128)
    learned = [i for i, marked in zip(tokens.input_ids, tokens.response_mask, strict=True) if marked]
    assert TOKENIZER.decode(learned) == "a1<|im_end|>a2<|im_end|>"
    positions = {place - 1 for place, marked in enumerate(tokens.response_mask) if marked}
    _, gradient = hidden_gradients(tokens)
    trained = {place for place, pull in enumerate(gradient) if pull.abs().sum() > 0}
    assert trained == positions


@torch.no_grad()
def test_scores_agree_with_the_loss() -> None:
    (batch,) = collate(ROWS, 0)
    scores = score_responses(MODEL, batch)
    assert float(scores.loss.sum() / scores.targets.sum()) == pytest.approx(float(loss_of(ROWS)), rel=1e-6)
    assert scores.targets.tolist() == [tokens.target_count for tokens in ROWS]
    assert bool((scores.correct <= scores.targets).all())


def test_tasks_of_different_lengths_run_side_by_side() -> None:
    tasks = [FixedTask(str(i), (), as_batch(collate(ROWS[i : i + 2], 0), CPU)) for i in range(3)]
    together = VmapLearner(MODEL, response_loss, 3, stack_token_batches)
    alone = FunctionalLearner(MODEL, response_loss)
    bundle = together.bundle(tasks)
    with together.excursion() as theta:
        losses, gradients = together.gradient(theta, bundle.query(theta))
    for index, task in enumerate(tasks):
        with alone.excursion() as theta:
            loss, gradient = alone.gradient(theta, task.query(theta))
        torch.testing.assert_close(losses[index], loss, rtol=1e-6, atol=1e-9)
        for name, expected in gradient.items():
            torch.testing.assert_close(gradients[name][index], expected, rtol=1e-5, atol=1e-7)


def hidden_gradients(tokens: TokenizedRow) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden states of a row and the loss's gradient with respect to them, (L, H) each."""
    seen: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, hidden: torch.Tensor) -> None:
        hidden.retain_grad()
        seen.append(hidden)

    handle = MODEL.model.norm.register_forward_hook(keep)
    response_loss(MODEL, collate([tokens], 0)[0]).backward()
    handle.remove()
    MODEL.zero_grad()
    (hidden,) = seen
    assert hidden.grad is not None
    return hidden.detach()[0], hidden.grad[0]
