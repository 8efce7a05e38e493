"""No content on two sides, within a task or across tasks; nothing lost without being counted."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.llm.data.leaks import across_splits, duplicates, into_training
from innerloop.llm.data.prepared import SPLITS, TaskData
from innerloop.llm.data.presets.base import Source, SourceTask, SplitPlan
from innerloop.llm.data.rows import Row, make_row
from innerloop.llm.data.splits import (
    DUPLICATE,
    IN_HELD_OUT,
    IN_TEST_SET,
    Shares,
    SplitTask,
    content_key,
    example_key,
    split,
)


def rows(*prompts: str, response: str = "r") -> tuple[Row, ...]:
    return tuple(make_row(prompt, response) for prompt in prompts)


def numbered(count: int, prefix: str = "p", response: str = "r") -> tuple[Row, ...]:
    return rows(*(f"{prefix} {number}" for number in range(count)), response=response)


def source(*tasks: SourceTask, reserved: tuple[str, ...] = (), balance: bool = False) -> Source:
    return Source("test", "here", "none", tasks, reserved=reserved, balance=balance)


def only(task: SourceTask, shares: Shares = Shares(), seed: int = 0) -> SplitTask:  # noqa: B008
    (done,) = split(source(task), shares, seed)
    return done


def sizes(data: TaskData) -> tuple[int, int, int]:
    return len(data.support), len(data.query), len(data.test)


prompts = st.lists(st.sampled_from([f"{case} {n}" for n in range(40) for case in ("P", "p")]), min_size=6)
tasks_of_any_content = st.lists(
    st.tuples(
        prompts,
        st.one_of(st.none(), prompts),
        st.sampled_from(["train", "validation", "held_out"]),
        st.sampled_from(["r", "s"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=150)
@given(drawn=tasks_of_any_content, seed=st.integers(0, 3), shared=st.booleans())
def test_nothing_leaks_and_nothing_is_lost(
    drawn: list[tuple[list[str], list[str] | None, str, str]], seed: int, shared: bool
) -> None:
    tasks = [
        SourceTask(
            f"task{number}",
            rows(*(p if shared else f"{number} {p}" for p in pool), response=response),
            "exact",
            role,
            None if test is None else rows(*test, response=response),
        )
        for number, (pool, test, role, response) in enumerate(drawn)
    ]
    try:
        done = split(source(*tasks), Shares(), seed)
    except InputError:  # a task was left without rows; other errors are provoked below
        return
    data = [task.data for task in done]
    assert not list(across_splits(data))
    trained = [task.data for task in done if task.source.role == "train"]
    kept_out = [task.data for task in done if task.source.role != "train"]
    mixed = [row for task in trained for row in (*task.support, *task.query)]
    assert not list(into_training(trained, kept_out, mixed))
    for task in done:
        given_rows = len(task.source.pool) + len(task.source.test or ())
        assert sum(sizes(task.data)) + sum(task.dropped.values()) == given_rows
        assert not any(duplicates(task.data.rows(name)) for name in SPLITS)
    assert split(source(*tasks), Shares(), seed) == done


def test_leaks_are_found_independently_of_the_splitter() -> None:
    one = TaskData("one", rows("a", "b"), rows("B ", "c"), rows("d"))
    other = TaskData("other", rows("D"), (), rows("c", "e"))
    found = list(across_splits([one, other]))
    assert [line.split(", such")[0] for line in found] == [
        "leak: 1 row of one/support also in one/query",
        "leak: 1 row of other/support also in one/test",
        "leak: 1 row of one/query also in other/test",
    ]
    held_out = TaskData("new", rows("a"), (), rows("x"))
    found = list(into_training([one], [held_out], rows("x", "d", "q")))
    assert [line.split(", such")[0] for line in found] == [
        "leak: 1 row of new (kept out of training) also in one",
        "leak: 1 row of new (kept out of training) also in mixed",
        "leak: 1 row of new/test (kept out of training) also in mixed",
        "leak: 1 row of one/test (kept out of training) also in mixed",
    ]


def test_fractions_and_the_sources_own_test_set() -> None:
    assert sizes(only(SourceTask("t", numbered(100), "exact")).data) == (60, 20, 20)
    assert sizes(only(SourceTask("t", numbered(100), "exact"), Shares(0.5)).data) == (50, 25, 25)
    assert sizes(only(SourceTask("t", numbered(100), "exact"), Shares(0.8, 0.2)).data) == (80, 20, 0)
    own = SourceTask("t", numbered(100), "exact", test=numbered(7, "test"))
    assert sizes(only(own).data) == (75, 25, 7)
    assert {row.prompt for row in only(own).data.test} == {row.prompt for row in own.test or ()}


def test_small_tasks_keep_a_row_in_every_split() -> None:
    for count in range(3, 12):
        assert min(sizes(only(SourceTask("t", numbered(count), "exact")).data)) >= 1


def test_fixed_numbers_of_rows() -> None:
    task = SourceTask("t", numbered(50), "exact", plan=SplitPlan(support_rows=10, query_rows=5))
    assert sizes(only(task).data) == (10, 5, 35)
    task = SourceTask("t", numbered(50), "exact", plan=SplitPlan(support=0.5, max_rows=20))
    assert sizes(only(task).data) == (10, 5, 5)
    task = SourceTask("t", numbered(50), "exact", plan=SplitPlan(support_rows=40, query_rows=20))
    with pytest.raises(InputError, match="has 50 rows, fewer than the 40 support rows and 20 query rows"):
        only(task)


def test_the_number_of_rows_is_bounded_and_the_test_set_too() -> None:
    task = SourceTask("t", numbered(100), "exact", test=numbered(50, "test"))
    assert sizes(only(task, Shares(max_samples=20)).data) == (15, 5, 20)


def test_balanced_tasks_have_as_many_rows_as_the_smallest_after_dropping() -> None:
    small = SourceTask("small", (*numbered(30, "s"), *numbered(10, "S")), "exact")
    large = SourceTask("large", numbered(100, "l"), "exact")
    done = split(source(small, large, balance=True), Shares(), 0)
    assert [sum(sizes(task.data)) for task in done] == [30, 30]


def test_every_split_holds_the_classes_in_proportion() -> None:
    labelled = [
        make_row(f"{label} {number}", label, metadata={"label": label})
        for label, count in (("A", 40), ("B", 40), ("C", 20))
        for number in range(count)
    ]
    data = only(SourceTask("t", tuple(labelled), "choice")).data
    for name, expected in (("support", (24, 24, 12)), ("query", (8, 8, 4)), ("test", (8, 8, 4))):
        counts = Counter(row.label for row in data.rows(name))
        assert (counts["A"], counts["B"], counts["C"]) == expected, name
    assert set(Counter(row.label for row in data.support[:5])) == {"A", "B", "C"}, "the head is a fair sample"


def test_what_a_source_tests_on_is_dropped_from_every_pool() -> None:
    one = SourceTask("one", (*numbered(20), make_row("Shared  Problem", "r")), "math", test=rows("x"))
    two = SourceTask("two", numbered(20, "q"), "math", test=rows("shared problem"))
    done = split(source(one, two, reserved=("P 3",)), Shares(), 0)
    assert done[0].dropped == {IN_TEST_SET: 2}
    assert [row.prompt for row in done[1].data.test] == ["shared problem"], "the test set stays whole"


def test_examples_of_a_held_out_task_leave_training_whatever_their_case() -> None:
    train = SourceTask("train", (*numbered(20), make_row("WORD", "w"), make_row("Other", "W")), "exact")
    new = SourceTask(
        "new", (*numbered(20, "q"), make_row("word", "w"), make_row("other", "w")), "exact", "held_out"
    )
    done = split(source(train, new), Shares(), 0)
    assert done[0].dropped == {IN_HELD_OUT: 1}, "the other one differs in the case of its response"
    assert not done[1].dropped


def test_shared_inputs_stand_on_the_same_side_in_every_task() -> None:
    tasks = [SourceTask(f"t{n}", numbered(50, response=str(n)), "exact") for n in range(3)]
    done = split(source(*tasks), Shares(), 0)
    for name in SPLITS:
        sides = [{row.prompt for row in task.data.rows(name)} for task in done]
        assert sides[0] == sides[1] == sides[2]


def test_the_first_of_equal_rows_is_kept() -> None:
    doubled = (make_row("A", "first"), make_row("a ", "second"), *numbered(10))
    done = only(SourceTask("t", doubled, "exact"))
    assert done.dropped == {DUPLICATE: 1}
    everything = [row for name in SPLITS for row in done.data.rows(name)]
    assert {row.response for row in everything} == {"first", "r"}


def test_rows_left_out_by_the_preset_are_counted_with_the_dropped_ones() -> None:
    assert only(SourceTask("t", numbered(10), "exact", left_out={"too long": 4})).dropped == {"too long": 4}


def test_content_ignores_case_spacing_and_unicode_form() -> None:
    one, other = make_row("Caf\u00e9  au\nlait", "A"), make_row("cafe\u0301 AU lait", "a")
    assert content_key(one) == content_key(other)
    assert example_key(one) != example_key(other)
    assert content_key(one) != content_key(make_row("cafe au lait", "A"))


def test_the_seed_decides() -> None:
    task = SourceTask("t", numbered(50), "exact")
    assert only(task, seed=1).data == only(task, seed=1).data
    assert only(task, seed=1).data != only(task, seed=2).data


@pytest.mark.parametrize(
    ("support", "query"),
    [(0.0, None), (1.0, None), (-0.1, 0.5), (0.6, 0.5), (0.5, 0.0), (float("nan"), None)],
)
def test_ratios_out_of_range(support: float, query: float | None) -> None:
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        Shares(support, query)


def test_bad_plans() -> None:
    with pytest.raises(InputError, match="--max-samples is 0"):
        Shares(max_samples=0)
    with pytest.raises(InputError, match="of task 't' must lie between"):
        only(SourceTask("t", numbered(10), "exact", plan=SplitPlan(support=1.5)))


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        (SourceTask("t", (), "exact"), "support"),
        (SourceTask("t", numbered(1), "exact"), "query"),
        (SourceTask("t", numbered(1), "exact", "held_out"), "test"),
    ],
)
def test_a_task_that_lacks_what_its_role_needs(task: SourceTask, missing: str) -> None:
    with pytest.raises(InputError, match=f"task 't' is left without {missing} rows"):
        only(task)
