"""Frozen layers run once for a row: the same losses, gradients and Hessian-vector products as without."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder
from innerloop.core.task import pieces
from innerloop.llm.attention import ROWS_APART, attend_rows_apart, keep_rows_apart
from innerloop.llm.data.rows import Message, Row
from innerloop.llm.data.tokens import TokenizedRow, shared_beginning, tokenize, tokenize_prompt
from innerloop.llm.lora import LoraSpec, attach_lora
from innerloop.llm.loss import batch_tokens, response_loss, score_responses, stack_token_batches
from innerloop.llm.model import ModelSpec, load_model
from innerloop.llm.prefix import FrozenPrefix, frozen_layers
from innerloop.llm.tasks import Batcher, RowsTask
from tiny_llama import save_tiny_llama, tiny_llama, tiny_tokenizer

LAYERS, ADAPTED = 4, (2, 3)
ENOUGH = 1 << 20
TOKENIZER = tiny_tokenizer()


def row(prompt: str, response: str) -> TokenizedRow:
    chat = (Message("user", prompt), Message("assistant", response))
    return tokenize(Row(prompt, response, chat), TOKENIZER, 64)


ROWS = [row("a", "yes"), row("a longer one", "n"), row("b?", "an answer"), row("c c", "ok"), row("d", "e")]


def adapted_model(
    attention: str, layers: tuple[int, ...] = ADAPTED, checkpointing: bool = False
) -> PeftModel:
    """A float64 Llama of four layers with random adapters on the upper two."""
    base = tiny_llama(layers=LAYERS, dtype=torch.float64)
    if attention == "rows apart":
        assert keep_rows_apart(base)
    else:
        base.set_attn_implementation(attention)
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    model = attach_lora(base, LoraSpec(rank=2, layers=layers), "tiny")
    with torch.no_grad():
        for index, p in enumerate(p for p in model.parameters() if p.requires_grad):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(index)))
    model.train(checkpointing)
    return model


def batcher(model: PeftModel, prefix: FrozenPrefix | None, micro_tokens: int | None = None) -> Batcher:
    apart = model.config._attn_implementation == ROWS_APART
    return Batcher(
        TOKENIZER,
        torch.device("cpu"),
        packed=apart,
        sharing=apart,
        micro_tokens=micro_tokens,
        prefix=prefix,
    )


def prefix_of(model: PeftModel, budget: int = ENOUGH) -> FrozenPrefix:
    prefix = FrozenPrefix.of(model, budget)
    assert prefix is not None
    return prefix


def runs_of_layers(model: nn.Module) -> list[int]:
    """How often each decoder layer computes from now on, counted by its first norm."""
    counts = [0] * LAYERS

    def count(index: int) -> None:
        counts[index] += 1

    for index, layer in enumerate(model.get_base_model().model.layers):  # type: ignore[operator]
        layer.input_layernorm.register_forward_hook(lambda *_, at=index: count(at))
    return counts


def assert_same(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert any(float(tensor.abs().max()) > 1e-4 for tensor in wanted.values())
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("micro_tokens", [None, 64])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "rows apart"])
def test_loss_and_gradient_are_the_same(
    attention: str, checkpointing: bool, micro_tokens: int | None
) -> None:
    model = adapted_model(attention, checkpointing=checkpointing)
    learner = FunctionalLearner(model, response_loss)
    with learner.excursion() as theta:
        wanted = learner.gradient(theta, batcher(model, None, micro_tokens).batch(ROWS))
        got = learner.gradient(theta, batcher(model, prefix_of(model), micro_tokens).batch(ROWS))
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-10, atol=0)
    assert_same(got[1], wanted[1])


def test_frozen_layers_run_once_for_a_row_and_adapted_ones_every_time() -> None:
    model = adapted_model("rows apart")
    make = batcher(model, prefix_of(model))
    counts = runs_of_layers(model)
    learner = InPlaceLearner(model, response_loss)
    with learner.excursion() as theta:
        for rows in (ROWS[:3], ROWS[:3], ROWS[2:], ROWS):
            learner.gradient(theta, make.batch(rows))
    assert counts == [len(ROWS), len(ROWS), 4, 4]


@pytest.mark.parametrize("attention", ["eager", "rows apart"])
def test_meta_gradients_are_the_same(attention: str) -> None:
    """Before and after adaptation, in the inner steps, and on both sides of a difference quotient."""
    model = adapted_model(attention)
    rates = LearningRates(0.1, [n for n, p in model.named_parameters() if p.requires_grad], 2)
    inner = InnerLoop(SGD(), rates, 2)
    product = "reverse" if attention == "eager" else "central"
    for strategy in (FirstOrder(inner), Exact(inner)):
        with_prefix, without = (
            strategy(
                FunctionalLearner(model, response_loss, hessian_product=product),
                RowsTask("t", [ROWS[:2], ROWS[2:4]], ROWS[3:], batcher(model, prefix)),
            )
            for prefix in (prefix_of(model), None)
        )
        tolerance = 1e-9 if product == "reverse" else 1e-6
        for name, tensor in without.gradient.items():
            torch.testing.assert_close(with_prefix.gradient[name], tensor, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(with_prefix.query_loss_before, without.query_loss_before)
        torch.testing.assert_close(with_prefix.support_loss, without.support_loss)


def test_several_tasks_at_once() -> None:
    model = adapted_model("eager")
    learner: Learner = VmapLearner(model, response_loss, 2, stack_token_batches)
    found = []
    for prefix in (prefix_of(model), None):
        make = batcher(model, prefix)
        task = learner.bundle([RowsTask(str(i), [ROWS[i : i + 2]], ROWS[2 + i : 4], make) for i in range(2)])
        with learner.excursion() as theta:
            found.append(learner.gradient(theta, task.query(theta)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=0)
    assert_same(found[0][1], found[1][1])


@pytest.mark.parametrize("attention", ["eager", "rows apart"])
def test_scores_are_those_of_each_row_alone(attention: str) -> None:
    model = adapted_model(attention)
    scores = score_responses(model, batcher(model, prefix_of(model)).in_order(ROWS))
    assert len(scores.loss) == len(ROWS)
    for index, tokens in enumerate(ROWS):
        alone = score_responses(model, batcher(model, None).in_order([tokens]))
        torch.testing.assert_close(scores.loss[index], alone.loss[0], rtol=1e-6, atol=1e-8)
        assert scores.correct[index] == alone.correct[0]
        assert scores.targets[index] == alone.targets[0] == tokens.target_count


def test_the_budget_holds_and_what_it_drops_is_computed_again() -> None:
    model = adapted_model("rows apart")
    one = 8 * 32 * len(ROWS[0].input_ids)
    prefix = prefix_of(model, budget=2 * one)
    wanted = prefix_of(model).states(ROWS)
    for _ in range(2):
        for tokens, states in prefix.states(ROWS).items():
            torch.testing.assert_close(states, wanted[tokens], rtol=1e-9, atol=1e-11)
        assert sum(states.nbytes for (states,) in prefix._kept.values()) == prefix._held <= 2 * one


@pytest.mark.parametrize("attention", ["eager", "rows apart"])
def test_frozen_layers_keep_for_decoding_what_a_whole_pass_does(attention: str) -> None:
    model = adapted_model(attention)
    for tokens, layers in prefix_of(model).keys_values(ROWS).items():
        cache = model(input_ids=torch.tensor([tokens.input_ids]), use_cache=True).past_key_values
        assert len(layers) == ADAPTED[0]
        for (keys, values), layer in zip(layers, cache.layers, strict=False):
            torch.testing.assert_close(keys, layer.keys[0], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(values, layer.values[0], rtol=1e-9, atol=1e-11)


def test_a_rows_states_depend_on_no_other_row() -> None:
    """To the bit: a resumed run meets its rows in other company, and must equal one that was not stopped."""
    model = adapted_model("rows apart").float()
    together = prefix_of(model).states(ROWS)
    for tokens in ROWS:
        assert torch.equal(prefix_of(model).states([tokens])[tokens], together[tokens])


def test_there_is_none_where_it_cannot_hold() -> None:
    assert FrozenPrefix.of(adapted_model("sdpa"), 0) is None
    assert FrozenPrefix.of(adapted_model("sdpa", layers=(0, 3)), ENOUGH) is None
    assert FrozenPrefix.of(tiny_llama(), ENOUGH) is None
    trained_below = adapted_model("sdpa")
    trained_below.get_base_model().model.embed_tokens.weight.requires_grad_(True)  # type: ignore[union-attr]
    assert FrozenPrefix.of(trained_below, ENOUGH) is None
    noisy = adapted_model("sdpa")
    noisy.config.attention_dropout = 0.1
    assert FrozenPrefix.of(noisy.train(), ENOUGH) is None
    assert FrozenPrefix.of(noisy.eval(), ENOUGH) is not None


def test_there_is_none_where_layers_hand_on_more_than_their_states() -> None:
    model = adapted_model("sdpa")
    layers = model.get_base_model().model.layers  # type: ignore[union-attr]
    seen: list[Tensor] = []
    layers[0].register_forward_hook(lambda _layer, _given, output: seen.append(output))
    layers[3].register_forward_hook(
        lambda _layer, _given, output: (
            output + 9 * seen[-1].mean(-1, keepdim=True) * output.roll(1, -1) if seen else output
        )
    )
    assert FrozenPrefix.of(model, ENOUGH) is None


def test_dropout_of_the_adapter_is_no_hindrance() -> None:
    base = tiny_llama(layers=LAYERS)
    model = attach_lora(base, LoraSpec(rank=2, layers=ADAPTED, dropout=0.5), "tiny").train()
    assert FrozenPrefix.of(model, ENOUGH) is not None


def test_a_model_is_loaded_with_rows_apart_on_a_cpu(tmp_path: Path) -> None:
    spec = ModelSpec(str(save_tiny_llama(tmp_path)), device="cpu", lora=LoraSpec(layers=(1,)))
    loaded = load_model(spec).model
    assert loaded.config._attn_implementation == ROWS_APART
    assert len(frozen_layers(loaded)) == 1
    assert load_model(replace(spec, attn_implementation="sdpa")).model.config._attn_implementation == "sdpa"


def test_a_window_narrower_than_a_row_is_kept() -> None:
    """Row by row, and with a shared beginning, against one sequence with the window's mask."""
    made = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 11, 4, dtype=torch.float64, generator=made) for _ in range(3))
    module = nn.Module()
    for shared in (0, 2, 5):
        got, _ = attend_rows_apart(
            module, query, key, value, None, row_lengths=[7, 4], shared=shared, sliding_window=3
        )
        index = torch.arange(11)
        second = index >= 7
        place = torch.where(second, index - 7 + shared, index)
        same = (second[:, None] == second) | (second[:, None] & (index < shared))
        back = place[:, None] - place
        mask = same & (back >= 0) & (back < 3)
        scores = (query @ key.transpose(-1, -2) / 2).masked_fill(~mask, float("-inf"))
        torch.testing.assert_close(got, (scores.softmax(-1) @ value).transpose(1, 2))


def test_packed_batches_hold_no_padding_and_a_shared_beginning_once() -> None:
    model = adapted_model("rows apart")
    (batch,) = pieces(batcher(model, None).batch(ROWS))
    every = sum(len(tokens.input_ids) for tokens in ROWS)
    beginning = len(tokenize_prompt(Row("", "", (Message("user", "#"), Message("assistant", ""))), TOKENIZER))
    shared = shared_beginning(ROWS)
    assert 0 < shared < beginning
    assert batch.input_ids.numel() == every - shared * (len(ROWS) - 1)
    assert batch_tokens(batch) == every
    model.set_attn_implementation("sdpa")
    (padded,) = pieces(batcher(model, None).batch(ROWS))
    assert batch_tokens(padded) == every


@pytest.mark.parametrize("micro_tokens", [None, 64])
def test_a_shared_beginning_changes_neither_loss_nor_gradient(micro_tokens: int | None) -> None:
    """Against each row alone, gradients through the shared tokens included."""
    model = adapted_model("rows apart", layers=(0, 1, 2, 3))
    learner = FunctionalLearner(model, response_loss)
    assert shared_beginning(ROWS) > 0
    targets = sum(tokens.target_count for tokens in ROWS)
    with learner.excursion() as theta:
        got = learner.gradient(theta, batcher(model, None, micro_tokens).batch(ROWS))
        wanted = {name: torch.zeros_like(p) for name, p in theta.items()}
        loss = torch.zeros((), dtype=torch.float64)
        for tokens in ROWS:
            share = tokens.target_count / targets
            alone, gradient = learner.gradient(theta, batcher(model, None).batch([tokens]))
            loss += share * alone
            wanted = {name: total + share * gradient[name] for name, total in wanted.items()}
    torch.testing.assert_close(got[0], loss, rtol=1e-6, atol=0)
    for name, tensor in wanted.items():  # Llama's norms and rotations are float32 whatever the weights
        torch.testing.assert_close(got[1][name], tensor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_other_attention_reads_a_shared_beginning_by_a_mask(attention: str) -> None:
    apart, other = adapted_model("rows apart"), adapted_model(attention)
    (batch,) = pieces(batcher(apart, None).batch(ROWS))
    assert int(batch.shared) > 0
    with torch.no_grad():
        torch.testing.assert_close(response_loss(other, batch), response_loss(apart, batch))


def test_what_rows_share_ends_before_what_the_first_target_is_read_from() -> None:
    def tokens(ids: Sequence[int], prompt: int) -> TokenizedRow:
        return TokenizedRow(tuple(ids), tuple(place >= prompt for place in range(len(ids))))

    assert shared_beginning([tokens([1, 2, 3, 4], 2), tokens([1, 2, 3, 5], 3)]) == 1
    assert shared_beginning([tokens([1, 2, 3, 4], 3), tokens([1, 9, 3, 5], 3)]) == 1
    assert shared_beginning([tokens([1, 2], 1), tokens([1, 2], 1)]) == 0
    assert shared_beginning([tokens([1, 2, 3], 2)]) == 0
