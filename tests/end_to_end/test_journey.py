"""The LLM engineer's journey with every algorithm: train, resume, load elsewhere, evaluate, report, adapt."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import innerloop
from end_to_end.workbench import Workbench, read_jsonl, write_jsonl
from innerloop.cli.main import main

CONFIGS = ("maml_sft", "fomaml_sft", "reptile_sft", "meta_lora", "sft", "lora_sft")
TASK_METRICS = ("support_loss", "query_loss", "adaptation_gap", "adaptation_gain")


@pytest.mark.parametrize("config_name", CONFIGS)
def test_every_algorithm_trains_and_tracks_its_metrics(workbench: Workbench, config_name: str) -> None:
    run = workbench.train(config_name, config_name)
    rows = read_jsonl(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    plain = config_name in ("sft", "lora_sft")
    expected = {"train/loss"} if plain else {"meta/loss", "meta/avg_adaptation_gap"}
    expected |= {"meta/grad_norm", "meta/lr", "perf/tokens", "perf/seconds", "perf/peak_memory_bytes"}
    expected |= {f"{task}/{name}" for task in ("red", "blue") for name in TASK_METRICS}
    assert expected <= set(rows[0])
    assert {f"eval/green/{name}" for name in TASK_METRICS} <= set(rows[1])
    assert "eval/green/query_loss" not in rows[0]
    gap = rows[0]["red/query_loss"] - rows[0]["red/support_loss"]
    assert rows[0]["red/adaptation_gap"] == pytest.approx(gap)


@pytest.mark.parametrize("config_name", CONFIGS)
def test_artifacts_load_without_innerloop(workbench: Workbench, config_name: str) -> None:
    run = workbench.train(config_name, config_name)
    folder = run / "latest"
    assert folder.resolve().name == "step_4"
    AutoTokenizer.from_pretrained(folder)
    if config_name.endswith("lora") or config_name.startswith("lora"):
        base = AutoModelForCausalLM.from_pretrained(workbench.model)
        model = PeftModel.from_pretrained(base, folder)
        name = "adapter_model.safetensors"
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
        name = "model.safetensors"
    assert (folder / name).is_file()
    assert not list(run.rglob("*.bin")) + list(run.rglob("*.pt"))
    model(input_ids=torch.tensor([[5, 6, 7]]))


@pytest.mark.parametrize("config_name", CONFIGS)
def test_an_interrupted_run_equals_an_uninterrupted_one(workbench: Workbench, config_name: str) -> None:
    whole = workbench.train(config_name, "whole")
    shutil.copytree(whole / "step_2", workbench.root / "parts" / "step_2")
    workbench.train(config_name, "parts")
    one, other = (
        load_file(run / "step_4" / "trainer_state" / "tensors.safetensors")
        for run in (whole, workbench.root / "parts")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluate_report_adapt_and_generate(workbench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = []
    for config_name, model_type in (("meta_lora", "meta_lora"), ("lora_sft", "lora_sft")):
        run = workbench.train(config_name, config_name)
        evaluated.append(evaluate(workbench, str(run), model_type))
    evaluated.append(evaluate(workbench, str(workbench.model), "icl"))
    rows = read_jsonl(evaluated[0] / "results.jsonl")
    assert [(row["budget"], row["run"]) for row in rows] == [(0, 0), (2, 0), (2, 1)]
    # The un-adapted adapter before training is the base model, but after it the two differ.
    assert set(rows[0]["metrics"]) == {"accuracy", "strict_accuracy", "loss", "token_accuracy"}
    report = workbench.root / "report.html"
    assert main(["report", *map(str, evaluated), "-o", str(report)]) == 0
    page = report.read_text()
    assert "META-LORA" in page
    assert "http://" not in page.replace("http://www.w3.org", "")

    examples = write_jsonl(
        workbench.root / "examples.jsonl", [{"prompt": f"{i}?", "response": "A"} for i in range(5)]
    )
    adapted = workbench.root / "adapted"
    words = ["--model-path", str(workbench.root / "meta_lora"), "--examples", str(examples)]
    assert main(["adapt", *words, "-o", str(adapted), "--steps", "3"]) == 0
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(workbench.model), adapted)
    merged = workbench.root / "merged"
    assert main(["adapt", *words, "-o", str(merged), "--merge"]) == 0
    AutoModelForCausalLM.from_pretrained(merged)
    capsys.readouterr()
    assert main(["generate", "--model-path", str(adapted), "--prompt", "1?", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_adapting_from_python_lowers_the_loss(workbench: Workbench) -> None:
    run = workbench.train("fomaml_sft", "run", "meta.inner_lr=0.1", "meta.inner_max_grad_norm=null")
    examples = [{"prompt": f"{word}?", "response": "B"} for word in ("sun", "moon", "star")]
    adapted = innerloop.load(run).adapt(examples, steps=20, lr=0.2)
    assert adapted.losses[-1] < 0.5 * adapted.losses[0]
    assert len(adapted.generate(["sun?"], max_new_tokens=2)) == 1
    saved = adapted.save(workbench.root / "python")
    assert json.loads((saved / "innerloop.json").read_text())["adapts"] == "full"


def test_an_interrupted_evaluation_goes_on(workbench: Workbench) -> None:
    whole = evaluate(workbench, str(workbench.model), "base")
    lines = (whole / "results.jsonl").read_text().splitlines()
    results = whole / "results.jsonl"
    results.write_text("\n".join(lines[:1]) + "\n" + lines[1][:20])
    evaluate(workbench, str(workbench.model), "base")
    again = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["metrics"] for row in again] == [json.loads(line)["metrics"] for line in lines]


def test_every_method_is_given_the_same_shots(workbench: Workbench) -> None:
    from innerloop.llm.data.prepared import load_task
    from innerloop.llm.evaluate.shots import draw_shots

    pool = load_task(workbench.data, "green").support
    two, four = (draw_shots("green", pool, count, 0, 7) for count in (2, 4))
    assert two == four[:2]
    assert two == draw_shots("green", pool, 2, 0, 7)
    runs = {tuple(draw_shots("green", pool, 2, run, 7)) for run in range(10)}
    assert len(runs) > 1


def evaluate(workbench: Workbench, model: str, model_type: str) -> Path:
    """Evaluates on the held-out task and returns the results' folder."""
    folder = workbench.root / "evaluate" / model_type
    words = [
        "--data-dir",
        str(workbench.data),
        "--eval-tasks",
        "green",
        "--n-shots",
        "0",
        "2",
        "--n-runs",
        "2",
    ]
    words += ["--output-dir", str(folder), "--max-new-tokens", "3"]
    assert main(["evaluate", "--model-path", model, "--model-type", model_type, *words]) == 0
    return folder
