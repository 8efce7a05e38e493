"""Jobs that meta-train a language model: their data, their settings, their results, through a stop."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError, Interrupted
from innerloop.core.tracking import read_metrics
from innerloop.llm.artifacts import load_artifact, read_info
from innerloop.llm.config import Config, config_from_dict
from innerloop.llm.data.prepared import Manifest, SplitEntry, TaskEntry, content_hash
from innerloop.llm.data.rows import make_row
from innerloop.llm.data.writing import write_rows
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.llm import LLMResults
from service.kinds.running import library, run, stopped_at, untimed_results, untimed_rows

HELD_OUT = "tool-or-instrument"
ROW = {"prompt": "apple", "response": "A"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> tuple[Place, Finished[LLMResults]]:
    """The example, run without a stop."""
    place = Place(tmp_path_factory.mktemp("llm") / "job", library=shelf)
    return place, run(Kind.LLM, place)


def config_of(finished: Finished[LLMResults]) -> Config:
    assert finished.model is not None
    return config_from_dict(dict(read_info(finished.model).config), "the artifact")


def test_results_are_those_of_the_metrics(ran: tuple[Place, Finished[LLMResults]]) -> None:
    place, finished = ran
    results = finished.results
    rows = read_metrics(place.run / "metrics.jsonl")
    last = rows[-1]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert (results.meta_loss, results.gradient_norm) == (last["meta/loss"], last["meta/grad_norm"])
    assert results.training == {name: value for name, value in last.items() if name != "step"}
    assert results.tokens == sum(row["perf/tokens"] for row in rows) > 0
    assert results.training_seconds == sum(row["perf/seconds"] for row in rows)


def test_adapting_to_held_out_tasks_is_measured(ran: tuple[Place, Finished[LLMResults]]) -> None:
    place, finished = ran
    assert finished.results.held_out.keys() == {HELD_OUT}
    found = finished.results.held_out[HELD_OUT]
    last = read_metrics(place.run / "metrics.jsonl")[-1]
    assert found.query_loss == last[f"eval/{HELD_OUT}/query_loss"]
    assert found.support_loss == last[f"eval/{HELD_OUT}/support_loss"]
    assert found.query_loss_before is not None
    # A model that learned nothing is near a guess among all tokens.
    assert found.query_loss_before == pytest.approx(math.log(259), rel=0.05)
    assert found.adaptation_gain == pytest.approx(found.query_loss_before - found.query_loss)
    assert found.adaptation_gap == pytest.approx(found.query_loss - found.support_loss)
    assert not any(name.startswith(f"{HELD_OUT}/") for name in last)


def test_the_model_is_an_adapter_in_the_jobs_folder(ran: tuple[Place, Finished[LLMResults]]) -> None:
    place, finished = ran
    assert finished.model == place.run / "step_3"
    assert (finished.model / "adapter_model.safetensors").is_file()
    assert load_artifact(finished.model, trainable=False).info is not None
    assert json.loads(finished.results.model_dump_json())["tokens"] == finished.results.tokens


def test_what_was_asked_reaches_the_domain(tmp_path: Path, shelf: Path) -> None:
    changes = {"inner_lr": 0.5, "outer_lr": 1e-4, "adaptation_steps": 1, "meta_batch_size": 1, "seed": 3}
    config = config_of(run(Kind.LLM, Place(tmp_path, library=shelf), total_episodes=1, **changes))
    meta = config.meta
    assert (meta.inner_lr, config.optim.lr, meta.num_inner_steps, meta.meta_batch_size) == (0.5, 1e-4, 1, 1)
    assert (config.trainer.seed, config.data.seed, config.trainer.total_steps) == (3, 3, 1)
    assert config.model.lora_rank == 8


def test_what_was_not_asked_is_the_algorithms_own(tmp_path: Path, shelf: Path) -> None:
    changes: dict[str, object] = {"adaptation_steps": None, "meta_batch_size": None, "held_out_tasks": None}
    finished = run(Kind.LLM, Place(tmp_path, library=shelf), total_episodes=1, **changes)
    meta = config_of(finished).meta
    assert (meta.inner_lr, meta.num_inner_steps, meta.meta_batch_size) == (1.0, 3, 4)
    assert finished.results.held_out == {}


@pytest.mark.parametrize("algorithm", ["fomaml_sft", "maml_sft", "reptile_sft", "lora_sft", "sft"])
def test_every_algorithm_runs(tmp_path: Path, shelf: Path, algorithm: str) -> None:
    changes = {"algorithm": algorithm, "outer_lr": 0.125, "total_episodes": 1}
    finished = run(Kind.LLM, Place(tmp_path, library=shelf), **changes)
    config = config_of(finished)
    rate = config.meta.reptile_epsilon if algorithm == "reptile_sft" else config.optim.lr
    assert rate == 0.125
    loss = "train/loss" if algorithm in ("sft", "lora_sft") else "meta/loss"
    assert finished.results.meta_loss == read_metrics(tmp_path / "run" / "metrics.jsonl")[-1][loss]


def test_a_stopped_run_ends_like_one_that_was_not(
    ran: tuple[Place, Finished[LLMResults]], tmp_path: Path, shelf: Path
) -> None:
    whole_place, whole = ran
    place = Place(tmp_path, library=shelf)
    with stopped_at(2), pytest.raises(Interrupted, match="SIGTERM"):
        run(Kind.LLM, place)
    again = run(Kind.LLM, place)
    assert untimed_results(again) == untimed_results(whole)
    assert untimed_rows(place) == untimed_rows(whole_place)
    left, right = RunState.read(again.model), RunState.read(whole.model)  # type: ignore[arg-type]
    assert all(tensor.equal(right.tensors[name]) for name, tensor in left.tensors.items())


def prepared(folder: Path, roles: dict[str, str]) -> None:
    """A prepared folder of small tasks with these roles."""
    entries: list[Any] = []
    for number, (name, role) in enumerate(roles.items()):
        rows = [make_row(f"word {number} {place}", "A") for place in range(2)]
        for split in ("support", "query", "test"):
            write_rows(folder / name / f"{split}.parquet", rows)
        split_entry = SplitEntry(len(rows), content_hash(rows))
        entries.append(TaskEntry(name, role, "exact", *[split_entry] * 3, {}))  # type: ignore[arg-type]
    manifest = Manifest("custom", "made up", "none", 0, {}, {}, {}, tuple(entries))
    (folder / "manifest.json").write_text(manifest.to_json())


@pytest.fixture
def stocked(tmp_path: Path, tiny_model: Path) -> Path:
    """A library with a folder of prepared tasks too."""
    shelf = library(tmp_path / "library", tiny_model)
    roles = {"first": "train", "second": "train", "third": "held_out", "fourth": "validation"}
    prepared(shelf / "data" / "words", roles)
    return shelf


def from_library(place: Place, **changes: object) -> Finished[LLMResults]:
    usual: dict[str, object] = {"tasks": None, "data": "words", "held_out_tasks": ["third"]}
    return run(Kind.LLM, place, total_episodes=1, **{**usual, **changes})


def test_prepared_data_are_named(stocked: Path, tmp_path: Path) -> None:
    finished = from_library(Place(tmp_path / "job", library=stocked))
    config = config_of(finished)
    assert [task.name for task in config.meta.tasks] == ["first", "second"]
    assert finished.results.held_out.keys() == {"third"}
    assert read_info(finished.model).data_manifest_hash is not None  # type: ignore[arg-type]


def test_a_held_out_task_is_not_trained_on_whatever_its_role(stocked: Path, tmp_path: Path) -> None:
    finished = from_library(Place(tmp_path / "job", library=stocked), held_out_tasks=["second"])
    assert [task.name for task in config_of(finished).meta.tasks] == ["first"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"held_out_tasks": ["fifth"]}, "no task 'fifth'; there are: first, fourth, second, third"),
        ({"held_out_tasks": ["first", "second"]}, "no task to train on"),
        ({"data": "numbers"}, "no folder 'numbers' of prepared tasks; there are: words"),
        ({"model": "gpt-5"}, "no model 'gpt-5'; there are: smollm2-135m, tiny-llama"),
    ],
)
def test_what_is_not_in_the_library_is_refused(
    stocked: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        from_library(Place(tmp_path / "job", library=stocked), **changes)


def test_without_a_library_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    for changes, words in (({}, "no model 'tiny-llama'"), ({"tasks": None, "data": "words"}, "no folder")):
        with pytest.raises(InputError, match=words):
            run(Kind.LLM, Place(tmp_path), held_out_tasks=None, **changes)


def test_a_row_that_is_too_long_is_named(tmp_path: Path, shelf: Path) -> None:
    tasks = {"long": {"support": [ROW, {**ROW, "prompt": "x" * 2000}], "query": [ROW]}}
    with pytest.raises(InputError, match=r"'long', support, row 2.* tokens"):
        run(Kind.LLM, Place(tmp_path, library=shelf), tasks=tasks, held_out_tasks=None)


def test_rows_are_learned_as_they_were_given(tmp_path: Path, shelf: Path) -> None:
    row = {"prompt": 'Grüße\n"${a.b}"\u2028', "response": "日本"}
    tasks = {"odd": {"support": [row], "query": [row]}}
    run(Kind.LLM, Place(tmp_path, library=shelf), tasks=tasks, held_out_tasks=None, total_episodes=1)
    written = (tmp_path / "data" / "odd" / "support.jsonl").read_bytes()
    assert json.loads(written) == row
