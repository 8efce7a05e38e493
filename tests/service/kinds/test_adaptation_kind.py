"""Few-shot adaptations: what is learned from, what is tested on, what is left in the folder."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.tracking import read_metrics
from innerloop.llm.adapt import load
from innerloop.llm.artifacts import load_artifact
from innerloop.llm.config import load_config
from innerloop.llm.data.rows import make_row
from innerloop.llm.evaluate.scoring import make_test_set, score
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import adaptation_run
from innerloop.service.kinds.adaptation import AdaptationResults
from innerloop.service.kinds.kind import Finished, Place
from service.kinds.running import run, source, stopped_at

# Answers of one letter, that a random model can be pushed to within a few steps.
EXAMPLES = [{"prompt": f"word {number}", "response": "B"} for number in range(7)]
TESTS = [{"prompt": f"test {number}", "response": "B"} for number in range(3)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> tuple[Place, Finished[AdaptationResults]]:
    """An adaptation with tests of its own."""
    place = Place(tmp_path_factory.mktemp("adaptation") / "job", library=shelf)
    changes = {"examples": EXAMPLES, "test_examples": TESTS, "steps": 4, "learning_rate": 2.0}
    return place, run(Kind.ADAPTATION, place, **changes)


def test_the_example_runs(tmp_path: Path, shelf: Path) -> None:
    results = run(Kind.ADAPTATION, Place(tmp_path, library=shelf)).results
    assert (results.adapts, results.adapted_on, results.tested, results.tested_on) == (
        "lora",
        6,
        1,
        "test_examples",
    )


def test_steps_are_told_as_they_are_taken(ran: tuple[Place, Finished[AdaptationResults]]) -> None:
    place, finished = ran
    rows = read_metrics(place.run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows] == finished.results.support_losses
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_marks_are_those_of_the_base_and_of_the_saved_adapter(
    ran: tuple[Place, Finished[AdaptationResults]], shelf: Path
) -> None:
    place, finished = ran
    results = finished.results
    rows = [make_row(row["prompt"], row["response"]) for row in TESTS]
    batcher = load(shelf / "models" / "tiny-llama", load_config("meta_lora")).model.batcher
    tests = make_test_set(rows, (), "exact", batcher)
    assert finished.model == place.folder / "model"
    for marks, path in ((results.before, shelf / "models" / "tiny-llama"), (results.after, finished.model)):
        scores = score(load_artifact(path, trainable=False).loaded, tests, batcher)
        assert marks.loss == pytest.approx(scores.loss, abs=1e-5)
        assert (marks.accuracy, marks.token_accuracy) == (scores.accuracy, scores.token_accuracy)
    assert results.after.loss < results.before.loss


def test_the_adapter_is_one_that_peft_loads_without_us(
    ran: tuple[Place, Finished[AdaptationResults]], shelf: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(shelf / "models" / "tiny-llama")
    model = PeftModel.from_pretrained(base, ran[1].model)
    theirs = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    assert any(bool(p.any()) for p in theirs.values())


def test_without_tests_every_fifth_example_is_held_out(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = adaptation_run._adapted

    def noted(initial: object, learned: list[object], *rest: object) -> object:
        seen.append([row.prompt for row in learned])  # type: ignore[attr-defined]  # rows
        return real(initial, learned, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(adaptation_run, "_adapted", noted)
    examples = [{"prompt": f"{number}", "response": "B"} for number in range(1, 12)]
    place = Place(tmp_path, library=shelf)
    results = run(Kind.ADAPTATION, place, examples=examples, test_examples=None).results
    assert seen == [["1", "2", "3", "4", "6", "7", "8", "9", "11"]]
    assert (results.adapted_on, results.tested, results.tested_on) == (9, 2, "held_out_examples")


@pytest.mark.parametrize(("algorithm", "adapts"), [("meta_lora", "lora"), ("fomaml_sft", "full")])
def test_the_model_of_an_earlier_job_is_adapted(
    tmp_path: Path, shelf: Path, algorithm: str, adapts: str
) -> None:
    earlier = {"algorithm": algorithm, "total_episodes": 1}
    trained = run(Kind.LLM, Place(tmp_path / "earlier", library=shelf), **earlier)
    sources = {"source_task_id": source(Kind.LLM, trained, **earlier)}
    place = Place(tmp_path / "job", sources)
    finished = run(Kind.ADAPTATION, place, model=None, source_task_id="a" * 24)
    assert finished.results.adapts == adapts
    assert (place.folder / "model" / "adapter_config.json").is_file() == (adapts == "lora")
    info = load_artifact(place.folder / "model", trainable=False).info
    assert info is not None
    assert info.algorithm == "fomaml"
    # The job's own model is as it was.
    assert load_artifact(tmp_path / "earlier" / "run", trainable=False).info is not None


def test_a_stopped_adaptation_begins_again_and_ends_the_same(
    ran: tuple[Place, Finished[AdaptationResults]], tmp_path: Path, shelf: Path
) -> None:
    whole_place, whole = ran
    place = Place(tmp_path, library=shelf)
    changes = {"examples": EXAMPLES, "test_examples": TESTS, "steps": 4, "learning_rate": 2.0}
    with stopped_at(2), pytest.raises(Interrupted, match="SIGTERM"):
        run(Kind.ADAPTATION, place, **changes)
    assert not (place.folder / "model").exists()
    for _ in range(2):
        again = run(Kind.ADAPTATION, place, **changes)
        assert again.results == whole.results
        assert read_metrics(place.run / "metrics.jsonl") == read_metrics(whole_place.run / "metrics.jsonl")
        file = "model/adapter_model.safetensors"
        left, right = load_file(place.folder / file), load_file(whole_place.folder / file)
        assert all(torch.equal(tensor, right[key]) for key, tensor in left.items())
    assert sorted(path.name for path in place.folder.iterdir()) == ["model", "run"]


def test_a_loss_that_is_no_number_fails_the_job(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "innerloop.llm.loss.token_losses", lambda logits, _labels: logits[:, 0] * float("nan")
    )
    with pytest.raises(NonFiniteError, match="support loss of task 'sorting tickets' is not finite"):
        run(Kind.ADAPTATION, Place(tmp_path, library=shelf))
    assert not (tmp_path / "model").exists()


def test_a_long_answer_is_cut_off(tmp_path: Path, shelf: Path) -> None:
    tests = [{"prompt": "recite", "response": "x" * 400}]
    changes = {"examples": EXAMPLES, "test_examples": tests, "steps": 1}
    results = run(Kind.ADAPTATION, Place(tmp_path, library=shelf), **changes).results
    assert results.max_new_tokens == adaptation_run.LONGEST_ANSWER


def test_an_example_that_is_too_long_is_named(tmp_path: Path, shelf: Path) -> None:
    examples = [*EXAMPLES, {"prompt": "x" * 3000, "response": "B"}]
    with pytest.raises(InputError, match=r"examples, row 8.*tokens"):
        run(Kind.ADAPTATION, Place(tmp_path, library=shelf), examples=examples)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, shelf: Path) -> None:
    place = Place(tmp_path, library=shelf)
    with pytest.raises(InputError, match="no model 'other'; there are: smollm2-135m, tiny-llama"):
        run(Kind.ADAPTATION, place, model="other")
    with pytest.raises(InputError, match="source_task_id"):
        run(Kind.ADAPTATION, place, model=None, source_task_id="a" * 24)
