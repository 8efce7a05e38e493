"""The runs of a cell adapted and scored together: what each gives alone, kept run by run."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from innerloop.llm.adaptable import Adaptable, load_adaptable
from innerloop.llm.config import load_config
from innerloop.llm.data.prepared import load_task
from innerloop.llm.episodes import row_keys
from innerloop.llm.evaluate import curves
from innerloop.llm.evaluate.cells import EvaluatedTask, adapt_and_score
from innerloop.llm.evaluate.curves import RESULTS_FILE, evaluate
from innerloop.llm.evaluate.scoring import make_test_set
from innerloop.llm.evaluate.settings import EvaluationSettings
from innerloop.llm.evaluate.shots import draw_shots
from tiny_llama import save_tiny_llama

LORA = ["model.lora_rank=2", "model.lora_layers=upper_half"]
COMMON = ["data.max_length=128", "meta.num_inner_steps=2", "meta.inner_batch_size=2", "trainer.device=cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a task, as a user has them."""
    root = tmp_path_factory.mktemp("runs")
    save_tiny_llama(root / "model")
    rng = random.Random(0)
    for split, count in (("support", 12), ("test", 5)):
        rows = [
            {"prompt": f"{split} {i}" * rng.randint(1, 3), "response": rng.choice(["A", "BB", "CCC"])}
            for i in range(count)
        ]
        path = root / "data" / "words" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def adaptable(place: Path, *words: str) -> Adaptable:
    return load_adaptable(str(place / "model"), load_config(overrides=[*COMMON, *words]))


@pytest.mark.parametrize("adapts", ["lora", "full"])
def test_runs_together_score_as_each_alone(place: Path, adapts: str) -> None:
    model = adaptable(place, *(LORA if adapts == "lora" else ()), "meta.inner_lr=0.5")
    assert (model.batcher.prefix is not None) == (adapts == "lora")
    model.loaded.model.double()
    data = load_task(place / "data", "words", row_keys(model.config), needs=("support", "test"))
    task = EvaluatedTask(data, "exact", make_test_set(data.test, (), "exact", model.batcher))
    draws = [draw_shots("words", data.support, 4, run, 0) for run in range(3)]
    theta = {name: p.detach().clone() for name, p in model.learner.theta.items()}
    inner = model.inner_loop()
    together = adapt_and_score(model, task, draws, inner, 2, 0)
    plain = replace(model, batcher=replace(model.batcher, prefix=None, packed=False))
    for shots, result in zip(draws, together, strict=True):
        (alone,) = adapt_and_score(plain, task, [shots], inner, 2, 0)
        assert result.scores.loss == pytest.approx(alone.scores.loss, rel=1e-6)
        assert replace(result.scores, loss=0) == replace(alone.scores, loss=0)
        assert result.ledger == alone.ledger
        assert result.ledger.gradient_passes == inner.steps
    assert len({result.scores.loss for result in together}) == len(draws), "the runs must differ"
    for name, p in model.learner.theta.items():
        assert torch.equal(p, theta[name])


def test_an_evaluation_cut_off_between_runs_goes_on(place: Path, tmp_path: Path) -> None:
    settings = EvaluationSettings(
        model_path=str(place / "model"),
        model_type="base",
        data_dir=place / "data",
        output_dir=tmp_path / "whole",
        tasks=("words",),
        n_shots=(0, 3),
        n_runs=3,
    )
    config = load_config(overrides=[*COMMON, *LORA])
    whole = (evaluate(settings, config) / RESULTS_FILE).read_text().splitlines()
    assert [json.loads(line)["run"] for line in whole] == [0, 0, 1, 2]
    cut = replace(settings, output_dir=tmp_path / "cut")
    evaluate(cut, config)
    path = cut.output_dir / RESULTS_FILE
    path.write_text("\n".join(whole[:2]) + "\n" + whole[2][:20])
    asked: list[list[int]] = []
    original = curves._run

    def watched(*given: object) -> object:
        asked.append([cell.run for cell in given[3]])  # type: ignore[attr-defined]
        return original(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_run", watched)
        evaluate(cut, config)
    assert asked == [[1, 2]]
    again = path.read_text().splitlines()
    assert len(again) == len(whole)
    for before, after in zip(map(json.loads, whole), map(json.loads, again), strict=True):
        assert (before["task"], before["budget"], before["run"]) == (
            after["task"],
            after["budget"],
            after["run"],
        )
        assert before["metrics"] == pytest.approx(after["metrics"], rel=1e-5)
