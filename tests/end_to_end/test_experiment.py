"""Whole pipelines: the experiment, stage by stage and resumed, and the hyperparameter search."""

import json
import shutil
from pathlib import Path

import pytest

from end_to_end.workbench import Workbench, read_jsonl
from innerloop.cli.main import main

EXPERIMENT = """
model: {{partial_pretrain: {model}, lora_rank: 2}}
meta: {{algorithm: fomaml, inner_lr: 0.5, inner_max_grad_norm: 1.0, num_inner_steps: 2, inner_batch_size: 4,
       query_batch_size: 4, meta_batch_size: 2}}
trainer: {{total_steps: 2, device: cpu, project_name: tests}}
experiment:
  output_dir: {output}
  prepare: {{preset: word-sorting, args: {{train_tasks: 4, validation_tasks: 1, held_out_tasks: 2}}}}
  methods:
    - {{name: meta, kind: meta}}
    - {{name: control, kind: control, overrides: [meta.algorithm=sft]}}
    - {{name: base, kind: base}}
    - {{name: icl, kind: icl, overrides: [model.lora_rank=0]}}
  evaluate: {{n_shots: [0, 1], n_runs: 1, max_test_samples: 4, adaptation_lrs: [0.1, 1.0],
             adaptation_steps: [1, 2]}}
"""


@pytest.fixture
def settings(workbench: Workbench) -> Path:
    """An experiment on the tiny model."""
    workbench.root.mkdir(parents=True)
    path = workbench.root / "experiment.yaml"
    path.write_text(EXPERIMENT.format(model=workbench.model, output=workbench.root / "out"))
    return path


def test_an_experiment_runs_to_its_report_and_goes_on_where_it_stopped(
    workbench: Workbench, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", "--config-path", str(settings)]
    assert main(command) == 0
    out = workbench.root / "out"
    printed = capsys.readouterr()
    assert str(out / "report.html") in printed.out
    assert "META-LORA" in printed.out
    for method in ("meta", "control", "base", "icl"):
        assert len(read_jsonl(out / "evaluate" / method / "results.jsonl")) == 4
    ledgers = {
        name: json.loads((out / "evaluate" / name / "method.json").read_text())["ledger"]
        for name in ("meta", "control")
    }
    assert ledgers["meta"]["gradient_passes"] == ledgers["control"]["gradient_passes"]
    assert ledgers["meta"]["tokens"] == ledgers["control"]["tokens"]

    # Lost: the control's evaluation and the report. Kept: everything else, untouched.
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    shutil.rmtree(out / "evaluate" / "control")
    (out / "report.html").unlink()
    assert main(command) == 0
    assert (out / "report.html").is_file()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == kept


def test_rate_and_steps_are_chosen_on_validation_tasks(workbench: Workbench, settings: Path) -> None:
    assert main(["experiment", "--config-path", str(settings)]) == 0
    out = workbench.root / "out"
    manifest = json.loads((out / "data" / "manifest.json").read_text())
    validation = [task["name"] for task in manifest["tasks"] if task["role"] == "validation"]
    for method in ("meta", "control", "base"):
        candidates = json.loads((out / "evaluate" / method / "selection.json").read_text())
        assert {(entry["learning_rate"], entry["steps"]) for entry in candidates} == {
            (rate, steps) for rate in (0.1, 1.0) for steps in (1, 2)
        }
        best = max(candidates, key=lambda entry: (entry["accuracy"], -entry["loss"]))
        shown = json.loads((out / "evaluate" / method / "method.json").read_text())["adaptation"]
        assert (shown["learning_rate"], shown["steps"]) == (best["learning_rate"], best["steps"])
        assert shown["chosen_on"] == ", ".join(validation)


def test_another_experiment_does_not_overwrite_the_first(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", "--config-path", str(settings)]
    assert main(command) == 0
    assert main([*command, "meta.inner_lr=0.25"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_sweep_tries_every_combination_once_and_resumes(
    workbench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        word
        for word in workbench.settings("unused", "trainer.total_steps=2")
        if "default_local_dir" not in word
    ]
    folder = workbench.root / "sweep"
    command = ["sweep", "--config-name", "meta_lora", *given, "meta.inner_lr=0.01,0.1", "optim.lr=1e-3,1e-4"]
    assert main([*command, "-o", str(folder), "--trials", "2"]) == 0
    runs = {path for path in folder.iterdir() if path.is_dir()}
    assert len(runs) == 2
    assert main([*command, "-o", str(folder)]) == 0
    runs = {path for path in folder.iterdir() if path.is_dir()}
    assert len(runs) == 4
    losses = {path.name: read_jsonl(path / "metrics.jsonl")[-1]["eval/loss"] for path in runs}
    best = json.loads((folder / "best.json").read_text())
    assert best["eval/loss"] == min(losses.values())
    assert best["trials"] == 4
    assert "best of 4" in capsys.readouterr().out
