"""Answers without EOS: the setting reaches the rows, and generation stops with the longest reference."""

import pytest
import torch

from innerloop.llm.config import load_config
from innerloop.llm.data.rows import make_row
from innerloop.llm.episodes import batcher_of
from innerloop.llm.evaluate.scoring import SPARE_TOKENS, make_test_set
from tiny_llama import tiny_tokenizer


@pytest.mark.parametrize(("setting", "end", "spare"), [("true", 1, SPARE_TOKENS), ("false", 0, 0)])
def test_the_setting_decides_how_answers_end_and_how_long_they_may_be(
    setting: str, end: int, spare: int
) -> None:
    config = load_config(overrides=[f"data.append_eos={setting}"])
    batcher = batcher_of(config, tiny_tokenizer(), torch.device("cpu"))
    rows = [make_row("one", "A"), make_row("two", "BCD")]
    trained = batcher.tokenize(rows, "rows")
    tests = make_test_set(rows, [], "exact", batcher)
    assert [row.target_count for row in trained] == [1 + end, 3 + end]
    assert list(tests.tokens) == trained
    assert tests.max_new_tokens == 3 + end + spare
    assert make_test_set(rows, [], "exact", batcher, max_new_tokens=2).max_new_tokens == 2
