"""The word lists and the tasks drawn from them."""

import itertools
import json
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.llm.data.presets.base import Request, Source
from innerloop.llm.data.presets.word_sorting import WordSortingOptions, sorting_tasks, tasks, word_lists
from innerloop.llm.data.splits import Shares, content_key, split

FEW = WordSortingOptions(train_tasks=30, validation_tasks=4, held_out_tasks=10)


def categories_of(source: Source, role: str) -> set[str | None]:
    return {row.label for task in source.tasks if task.role == role for row in task.pool}


def test_the_lists_are_long_enough_and_plain_words() -> None:
    lists = word_lists()
    assert len(lists) >= 60
    for category, words in lists.items():
        assert len(words) >= 30, category
        assert all(word.isalpha() and word.isascii() for word in words), category
        assert category.replace("_", "").isalpha()


def test_no_word_is_in_two_categories() -> None:
    counts = Counter(word.casefold() for words in word_lists().values() for word in words)
    assert [word for word, times in counts.items() if times > 1] == []


def test_no_word_is_the_plural_of_another_categorys_word() -> None:
    place = {word.casefold(): category for category, words in word_lists().items() for word in words}
    split_up = [word for word in place if place.get(word + "s", place[word]) != place[word]]
    assert split_up == []


def test_a_task_asks_for_the_letter_of_each_words_category() -> None:
    source = tasks(Request(seed=3), FEW)
    task = source.tasks[0]
    assert task.grader == "choice"
    letters = {row.label: row.response for row in task.pool}
    assert sorted(letters.values()) == ["A", "B", "C", "D"]
    for row in task.pool:
        assert row.prompt.removesuffix(" ->") in word_lists()[str(row.label)]
        assert row.response == row.answer == letters[row.label]


def test_categories_of_train_validation_and_test_are_disjoint() -> None:
    source = tasks(Request(), WordSortingOptions())
    by_role = [categories_of(source, role) for role in ("train", "validation", "held_out")]
    assert [len(names) for names in by_role] == [52, 8, 20]
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(by_role, 2))
    assert Counter(task.role for task in source.tasks) == {"train": 100, "validation": 8, "held_out": 20}


def test_the_letters_of_a_category_change_from_task_to_task() -> None:
    source = tasks(Request(), WordSortingOptions())
    letters: dict[str | None, set[str]] = {}
    for row in (row for task in source.tasks if task.role == "train" for row in task.pool):
        letters.setdefault(row.label, set()).add(row.response)
    assert sum(len(seen) > 1 for seen in letters.values()) > 45


def test_the_same_seed_gives_the_same_tasks_in_another_process_and_another_seed_others() -> None:
    program = (
        "from innerloop.llm.data.presets.base import Request\n"
        "from innerloop.llm.data.presets.word_sorting import WordSortingOptions, tasks\n"
        "import hashlib\n"
        "source = tasks(Request(seed=5), WordSortingOptions())\n"
        "print(hashlib.sha256(repr(source).encode()).hexdigest())\n"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
    assert tasks(Request(seed=5), FEW) != tasks(Request(seed=6), FEW)


def test_named_categories_are_held_out_and_skipped_ones_left_out() -> None:
    request = Request(
        holdout=("fruits", "rivers", "metals", "trees"), validation=("birds", "fish"), skip=("units",)
    )
    source = tasks(request, WordSortingOptions(ways=2, train_tasks=40, validation_tasks=2, held_out_tasks=6))
    assert categories_of(source, "held_out") == {"fruits", "rivers", "metals", "trees"}
    assert categories_of(source, "validation") == {"birds", "fish"}
    assert "units" not in categories_of(source, "train")


def test_the_splits_hold_every_class_and_no_word_of_another_split() -> None:
    source = tasks(Request(), FEW)
    places: dict[str, str] = {}
    for prepared in split(source, Shares(), seed=0):
        for name in ("support", "query", "test"):
            rows = prepared.data.rows(name)
            for row in rows:
                assert places.setdefault(content_key(row), name) == name
            if not (prepared.source.role == "train" and name == "test"):
                assert len({row.label for row in rows}) == 4, (prepared.data.name, name)
        if prepared.source.role == "held_out":
            shots = Counter(row.label for row in prepared.data.support)
            assert min(shots.values()) >= 8
            assert len(prepared.data.test) >= 40


@given(size=st.integers(4, 12), ways=st.integers(2, 4), count=st.integers(0, 24), seed=st.integers(0, 1000))
def test_drawn_tasks_are_different_and_use_the_categories_evenly(
    size: int, ways: int, count: int, seed: int
) -> None:
    names = [f"c{number}" for number in range(size)]
    drawn = list(sorting_tasks("train", names, ways, min(count, size * (size - 1)), seed))
    assert len({task.categories for task in drawn}) == len(drawn) == min(count, size * (size - 1))
    assert all(len(set(task.categories)) == ways for task in drawn)
    assert len({task.name for task in drawn}) == len(drawn)
    longer = list(sorting_tasks("train", names, ways, min(count + 1, size * (size - 1)), seed))
    assert longer[: len(drawn)] == drawn


def test_many_tasks_use_every_category_equally_often() -> None:
    names = [f"c{number}" for number in range(10)]
    uses = Counter(name for task in sorting_tasks("held_out", names, 4, 25, 0) for name in task.categories)
    assert set(uses.values()) == {10}


@pytest.mark.parametrize(
    "options",
    [
        WordSortingOptions(ways=1),
        WordSortingOptions(ways=27),
        WordSortingOptions(ways=9),
        WordSortingOptions(train_tasks=-1),
    ],
)
def test_impossible_settings_are_refused(options: WordSortingOptions) -> None:
    with pytest.raises(InputError, match="do not give"):
        tasks(Request(), options)


def test_a_source_folder_is_refused_rather_than_ignored(tmp_path: object) -> None:
    with pytest.raises(InputError, match="leave out --source-dir"):
        tasks(Request(source_dir=tmp_path), FEW)  # type: ignore[arg-type]


def test_an_unknown_category_names_its_neighbour() -> None:
    with pytest.raises(InputError, match="did you mean 'fruits'"):
        tasks(Request(holdout=("fruit",)), FEW)


def test_the_file_is_sorted_so_that_changes_read_well() -> None:
    assert list(word_lists()) == sorted(word_lists())
    assert json.loads(json.dumps(word_lists())) == {name: list(words) for name, words in word_lists().items()}
