"""Presets of many small tasks, on small copies of their sources: letters, roles, what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import (
    Clinc150Options,
    NoOptions,
    ReasoningGymOptions,
)
from innerloop.llm.data.presets import (
    clinc150,
    function_vectors,
    reasoning_gym,
)
from innerloop.llm.data.presets.base import Request
from llm.data.preparing import reasons

# CLINC150


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    domains = {f"domain{d}": [f"intent{d}{i}" for i in range(5)] for d in range(3)}
    pairs = [(intent, f"{intent} said") for each in domains.values() for intent in each]
    content = {
        "train": [[f"{text} {n}", intent] for intent, text in pairs for n in range(6)],
        "val": [[f"{text} softly {n}", intent] for intent, text in pairs for n in range(2)],
        "test": [[f"{text} at last {n}", intent] for intent, text in pairs for n in range(3)],
        "oos_train": [["nonsense", "oos"]],
    }
    content["val"] += [["nonsense", "oos"], ["lost", "unheard_of"], ["", "intent00"], ["alone"]]
    (tmp_path / "data_full.json").write_text(json.dumps(content))
    (tmp_path / "domains.json").write_text(json.dumps(domains))
    return tmp_path


def test_intents_go_by_letters_that_each_task_draws_anew(intents: Path) -> None:
    request = Request(intents, holdout=("domain1",), validation=("domain2",))
    source = clinc150.tasks(request, Clinc150Options(ways=3, tasks_per_domain=7, eval_tasks_per_domain=2))
    assert Counter(task.role for task in source.tasks) == {"train": 7, "held_out": 2, "validation": 2}
    meanings = set()
    for one in source.tasks:
        (domain,) = {row.fields["domain"] for row in one.pool}
        assert one.name.startswith(f"{domain}_")
        assert {domain: "train", "domain1": "held_out", "domain2": "validation"}[domain] == one.role
        for rows, count in ((one.pool, 8), (one.test or (), 3)):
            assert Counter(row.label for row in rows) == {"A": count, "B": count, "C": count}
        for row in one.pool:
            assert row.prompt == f"{row.prompt.removesuffix(chr(10) + 'Answer:')}\nAnswer:"
            assert str(row.fields["intent"]) in row.prompt
            assert row.response == row.answer == row.label
        meanings.add(tuple(sorted({(str(row.label), str(row.fields["intent"])) for row in one.pool})))
    assert len(meanings) == 11
    train = [one for one in source.tasks if one.role == "train"]
    letters = {(row.fields["intent"], row.label) for one in train for row in one.pool}
    assert len(letters) > len({intent for intent, _ in letters}), "an intent has no letter of its own"
    assert reasons(source) == [
        ("data_full.json", 32, "unknown intent"),
        ("data_full.json", 33, "empty prompt"),
        ("data_full.json", 34, "unknown intent"),
    ]
    assert clinc150.tasks(request, Clinc150Options(3, 7, 2)) == source


def test_the_domains_that_come_with_the_package() -> None:
    domains = clinc150._domains(None)
    assert len(domains) == 10
    assert {len(intents) for intents in domains.values()} == {15}
    assert {*clinc150.HELD_OUT, *clinc150.VALIDATION} < domains.keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Clinc150Options(ways=6), "too few for 20 different tasks of 6"),
        (Clinc150Options(ways=1), "--ways"),
        (Clinc150Options(ways=2, tasks_per_domain=21), "has 5 intents: too few for 21 different tasks"),
        (Clinc150Options(tasks_per_domain=0), "must be at least 1"),
    ],
)
def test_too_few_intents(intents: Path, options: Clinc150Options, words: str) -> None:
    with pytest.raises(InputError, match=words):
        clinc150.tasks(Request(intents), options)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("data_full.json", "{", "broken JSON"),
        ("data_full.json", "[]", "must be a JSON object"),
        ("data_full.json", '{"train": 1}', "no list of train utterances"),
        ("domains.json", '{"home": "lamp"}', "must list the intents of each domain; look at 'home'"),
    ],
)
def test_damaged_clinc_files(intents: Path, name: str, text: str, words: str) -> None:
    (intents / name).write_text(text)
    with pytest.raises(InputError, match=words):
        clinc150.tasks(Request(intents), Clinc150Options())


# Function vectors


def test_word_tasks(tmp_path: Path) -> None:
    pairs: list[object] = [
        {"input": "big", "output": "small"},
        {"input": "big"},
        {"input": "", "output": "x"},
        3,
    ]
    for folder, name in (
        ("abstractive", "antonym"),
        ("extractive", "choose_first_of_3"),
        ("abstractive", "capitalize"),
    ):
        (tmp_path / "function_vectors" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "function_vectors" / folder / f"{name}.json").write_text(json.dumps(pairs))
    for place in (tmp_path, tmp_path / "function_vectors"):
        source = function_vectors.tasks(Request(place), NoOptions())
        assert [(one.name, one.role) for one in source.tasks] == [
            ("antonym", "held_out"),
            ("capitalize", "train"),
            ("choose_first_of_3", "train"),
        ]
        (row,) = source.tasks[0].pool
        assert (row.prompt, row.response, row.answer) == ("big", "small", "small")
        assert reasons(source)[:3] == [
            ("antonym.json", 2, "wrong type"),
            ("antonym.json", 3, "empty prompt"),
            ("antonym.json", 4, "not a JSON object"),
        ]
    source = function_vectors.tasks(Request(tmp_path, holdout=("capitalize",)), NoOptions())
    assert {one.name: one.role for one in source.tasks}["antonym"] == "train"
    with pytest.raises(InputError, match="holds no task files"):
        function_vectors.tasks(Request(tmp_path / "absent"), NoOptions())
    with pytest.raises(InputError, match=r"not on the hub; give --source-dir"):
        function_vectors.tasks(Request(), NoOptions())


# reasoning-gym


def test_generated_tasks() -> None:
    request = Request(tasks=("chain_sum", "gcd"), holdout=("letter_counting",))
    source = reasoning_gym.tasks(request, ReasoningGymOptions(size=12))
    assert [(one.name, one.role, len(one.pool)) for one in source.tasks] == [
        ("chain_sum", "train", 12),
        ("gcd", "train", 12),
        ("letter_counting", "held_out", 12),
    ]
    assert [row.fields["index"] for row in source.tasks[0].pool] == list(range(12))
    assert reasoning_gym.tasks(request, ReasoningGymOptions(size=12)) == source


def test_generated_tasks_of_another_seed_share_no_entry() -> None:
    """A generator draws entry i with seed + i, so seeds 0 and 1 would share all entries but one."""
    pools = [
        reasoning_gym.tasks(Request(seed=seed, tasks=("chain_sum",)), ReasoningGymOptions(size=50))
        .tasks[0]
        .pool
        for seed in (0, 1)
    ]
    assert len({row.prompt for pool in pools for row in pool}) > 95


def test_generators_that_do_not_run() -> None:
    with pytest.raises(InputError, match="'composite' does not run with its defaults"):
        reasoning_gym.tasks(Request(tasks=("composite",)), ReasoningGymOptions(size=5))
    with pytest.raises(InputError, match="no task 'chain_sums'; did you mean 'chain_sum'"):
        reasoning_gym.tasks(Request(tasks=("chain_sums",)), ReasoningGymOptions())
    with pytest.raises(InputError, match="--size is 0"):
        reasoning_gym.tasks(Request(), ReasoningGymOptions(size=0))
    assert set(reasoning_gym.USUAL) <= set(reasoning_gym.DATASETS)
