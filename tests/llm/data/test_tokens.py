"""Masks are token-aligned: EOS is a target, the last prompt token is not, earlier answers of a chat are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from innerloop.core.errors import InputError
from innerloop.llm.data.rows import Message, Row, make_row
from innerloop.llm.data.tokens import (
    NoTargetError,
    TokenizedRow,
    decode_answer,
    token_count,
    tokenize,
    tokenize_prompt,
)
from tiny_llama import CHAT_TEMPLATE, END, START, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LONG = 10_000


def chat(*turns: tuple[str, str]) -> Row:
    messages = tuple(Message(role, content) for role, content in turns)
    return Row("prompt", messages[-1].content, messages)


def with_template(template: str | None, eos: str = END) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.eos_token = eos
    return tokenizer


def marked(row: TokenizedRow, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> str:
    """The row's text with every stretch of targets in brackets."""
    text, inside = "", False
    for token, target in zip(row.input_ids, row.response_mask, strict=True):
        text += "[" * (target and not inside) + "]" * (inside and not target) + tokenizer.decode([token])
        inside = target
    return text + "]" * inside


def test_one_question_and_its_answer() -> None:
    row = tokenize(make_row("2 + 3", "5"), TOKENIZER, LONG)
    assert marked(row) == f"{START}user\n2 + 3{END}\n{START}assistant\n[5{END}]"
    eos = TOKENIZER.eos_token_id
    assert row.input_ids[-1] == eos
    assert row.response_mask[-1]
    assert row.input_ids[-2] != eos, "EOS once"
    first_target = row.response_mask.index(True)
    assert not row.response_mask[first_target - 1], "the last prompt token is no target"
    assert row.target_count == 2


def test_every_answer_of_a_chat_is_learned() -> None:
    turns = (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))
    row = tokenize(chat(*turns), TOKENIZER, LONG)
    assert marked(row) == (
        f"{START}system\ns{END}\n{START}user\nu{END}\n{START}assistant\n[a{END}]\n"
        f"{START}user\nv{END}\n{START}assistant\n[b{END}]"
    )


def test_the_shots_of_a_prompt_can_stay_unlearned() -> None:
    turns = (("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))
    row = tokenize(chat(*turns), TOKENIZER, LONG, last_answer_only=True)
    assert marked(row).count("[") == 1
    assert marked(row).endswith(f"[b{END}]")


def test_a_template_that_ends_turns_with_a_token_of_its_own() -> None:
    tokenizer = with_template(CHAT_TEMPLATE, eos="<|pad|>")
    turns = (("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))
    row = tokenize(chat(*turns), tokenizer, LONG)
    assert f"[a{END}]" in marked(row, tokenizer)
    assert marked(row, tokenizer).endswith("[b<|pad|>]")


def test_a_template_that_strips_its_turns() -> None:
    tokenizer = with_template(CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"))
    row = tokenize(
        chat(("user", " u "), ("assistant", " a "), ("user", "v"), ("assistant", "b")), tokenizer, LONG
    )
    assert f"{START}user\nu{END}" in marked(row)
    assert f"[ a {END}]" in marked(row), "the answer itself is learned as it was given"


def test_a_template_that_rewrites_turns_is_refused() -> None:
    tokenizer = with_template(CHAT_TEMPLATE.replace("message['content']", "message['content'] | upper"))
    tokenize(make_row("u", "a"), tokenizer, LONG)
    with pytest.raises(InputError, match="rewrites earlier turns"):
        tokenize(chat(("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b")), tokenizer, LONG)


def test_a_template_that_refuses_a_role() -> None:
    tokenizer = with_template("{{ raise_exception('no system turns') }}")
    with pytest.raises(InputError, match="refuses the turns user: no system turns"):
        tokenize(make_row("u", "a"), tokenizer, LONG)


def test_without_a_template_the_text_is_plain() -> None:
    tokenizer = with_template(None)
    row = tokenize(
        chat(("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b")), tokenizer, LONG
    )
    assert marked(row, tokenizer) == f"u[ a{END}]v[ b{END}]"


def test_plain_text_needs_no_second_space_and_breaks_the_line_between_questions() -> None:
    tokenizer = with_template(None)
    row = tokenize(chat(("system", "s"), ("user", "u\n"), ("assistant", "a")), tokenizer, LONG)
    assert marked(row, tokenizer) == f"s\nu\n[a{END}]"
    assert decode_answer(tokenizer.encode(" a"), tokenizer) == "a"
    assert decode_answer(TOKENIZER.encode(" a"), TOKENIZER) == " a", "what a chat answers is left as it is"


def test_without_a_template_the_tokenizers_own_bos_comes_first() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = with_template(None)
    bos = (START, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A", special_tokens=[bos]
    )
    assert marked(tokenize(make_row("u", "a"), tokenizer, LONG), tokenizer) == f"{START}u[ a{END}]"


def test_an_answer_that_ends_in_eos_gets_no_second_one() -> None:
    row = tokenize(make_row("u", f"a{END}"), TOKENIZER, LONG)
    assert marked(row).endswith(f"[a{END}]")


def test_answers_of_known_length_can_do_without_eos() -> None:
    row = tokenize(make_row("u", "a"), TOKENIZER, LONG, append_eos=False)
    assert marked(row) == f"{START}user\nu{END}\n{START}assistant\n[a]"
    plain = with_template(None)
    turns = (("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))
    assert marked(tokenize(chat(*turns), plain, LONG, append_eos=False), plain) == "u[ a]\n\nv[ b]"
    context = tokenize_prompt(chat(*turns), plain, append_eos=False)
    assert plain.decode(context) == "u a\n\nv"


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no EOS token"):
        tokenize(make_row("u", "a"), tokenizer, LONG)


def test_generation_starts_where_the_answer_does() -> None:
    row = make_row("2 + 3", "5")
    whole = tokenize(row, TOKENIZER, LONG)
    assert tokenize_prompt(row, TOKENIZER) == whole.input_ids[: whole.response_mask.index(True)]
    assert token_count(row, TOKENIZER) == len(whole.input_ids)


def test_prompt_and_response_are_tokenised_apart() -> None:
    """A merge over the border would make other tokens than generation ever sees."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.WordLevel({"a": 0, "b": 1, "ab": 2, "\n": 3, "</s>": 4, "?": 5}, "?")
        ),
        eos_token="</s>",
    )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert tokenize(make_row("a", "b"), tokenizer, LONG).input_ids == (0, 1, 4)


# Truncation


def test_truncation_as_an_error_names_length_limit_and_row() -> None:
    with pytest.raises(InputError, match=r"has \d+ tokens and data.max_length is 10.*'2 \+ 3'"):
        tokenize(make_row("2 + 3", "5"), TOKENIZER, 10)


def test_truncation_cuts_the_named_end() -> None:
    row = make_row("question", "answer")
    whole = tokenize(row, TOKENIZER, LONG)
    left, right = (tokenize(row, TOKENIZER, len(whole.input_ids) - 3, side) for side in ("left", "right"))
    assert left.input_ids == whole.input_ids[3:]
    assert right.input_ids == whole.input_ids[:-3]
    assert left.response_mask == whole.response_mask[3:]
    assert right.response_mask == whole.response_mask[:-3]


def test_a_row_that_keeps_nothing_to_learn_is_refused() -> None:
    with pytest.raises(NoTargetError, match="keeps no answer"):
        tokenize(make_row("question", "a"), TOKENIZER, 5, "right")
    with pytest.raises(InputError, match="at least 2"):
        tokenize(make_row("question", "a"), TOKENIZER, 1, "left")


@settings(deadline=None, max_examples=60)
@given(
    turns=st.lists(
        st.tuples(st.text("ab \n", min_size=1), st.text("xy", min_size=1)), min_size=1, max_size=3
    ),
    max_length=st.integers(2, 120),
    truncation=st.sampled_from(["left", "right"]),
)
def test_the_first_token_is_never_a_target(
    turns: list[tuple[str, str]], max_length: int, truncation: str
) -> None:
    pairs = [turn for user, assistant in turns for turn in (("user", user), ("assistant", assistant))]
    try:
        row = tokenize(chat(*pairs), TOKENIZER, max_length, truncation)
    except NoTargetError:
        return
    assert not row.response_mask[0]
    assert 0 < row.target_count < len(row.input_ids) <= max_length
    assert len(row.input_ids) == len(row.response_mask)


@pytest.mark.smollm
def test_smollm2_ends_a_turn_with_its_eos_once() -> None:
    from transformers import AutoTokenizer

    from innerloop.llm.sources import find_model

    tokenizer = AutoTokenizer.from_pretrained(find_model("smollm2-135m").folder)
    row = tokenize(make_row("What is 2 + 3?", "It is 5."), tokenizer, LONG)
    targets = [token for token, target in zip(row.input_ids, row.response_mask, strict=True) if target]
    assert tokenizer.decode(targets) == "It is 5.<|im_end|>"
    assert tokenizer.decode(row.input_ids[: -len(targets)]).endswith("<|im_start|>assistant\n")
    turns = (("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))
    text = marked(tokenize(chat(*turns), tokenizer, LONG), tokenizer)
    assert text.endswith(
        "<|im_start|>assistant\n[a<|im_end|>]\n<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]"
    )
