"""Every language-model algorithm on MATH and GSM8K with SmolLM2-135M, from the command line to weights.

Not a comparison of methods: ten steps teach nothing. It shows that each algorithm trains on real worked
solutions, logs its metrics, resumes to the same bits, evaluates, and writes weights that ``transformers`` and
``peft`` load without innerloop; and what a step of each costs. Run::

    python benchmarks/math_gsm8k.py --source-dir $INNERLOOP_DATA --output-dir outputs/math_gsm8k
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from peft import PeftModel
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import nn, tensor
from transformers import AutoModelForCausalLM

STEPS, HALF = 10, 5
# One row a batch and two inner steps: the exact meta-gradient of all 135 million parameters costs two
# Hessian-vector products a task, each several gradients.
COMMON = (
    "model.partial_pretrain=smollm2-135m",
    "data.max_length=128",
    "data.truncation=left",  # a solution that does not fit keeps its end, where the answer is
    "meta.num_inner_steps=2",
    "meta.inner_batch_size=1",
    "meta.query_batch_size=1",
    "meta.meta_batch_size=2",
    "meta.tasks=[algebra,word_problems]",
    "meta.eval_tasks=[number_theory]",
    f"trainer.total_steps={STEPS}",
    f"trainer.save_freq={HALF}",
    f"trainer.test_freq={HALF}",
)
METHODS = ("sft", "fomaml_sft", "reptile_sft", "maml_sft", "meta_lora")
OWN = ("support_loss", "query_loss", "adaptation_gap", "adaptation_gain")
EVERY_METHOD = (
    "meta/grad_norm",
    "meta/lr",
    "perf/tokens",
    "perf/seconds",
    "perf/peak_memory_bytes",
    "eval/loss",
)
META_METRICS = ("meta/loss", "meta/avg_adaptation_gap", *(f"algebra/{name}" for name in OWN))


def innerloop(*words: str | Path) -> None:
    """Runs one command and shows what it prints; a failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "innerloop", *map(str, words)], check=True)


def train(method: str, data: Path, run: Path) -> list[dict[str, float]]:
    """Trains, or goes on with, one method; returns its metrics, one record a logged step."""
    innerloop(
        "train", "--config-name", method, *COMMON, f"data.path={data}", f"trainer.default_local_dir={run}"
    )
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def missing_metrics(method: str, records: list[dict[str, float]]) -> list[str]:
    """The metrics that no record has."""
    wanted = (*EVERY_METHOD, *(("train/loss",) if method == "sft" else META_METRICS))
    logged = {name for record in records for name in record}
    return [name for name in wanted if name not in logged]


def resumes(method: str, data: Path, run: Path) -> bool:
    """Whether training again from the halfway checkpoint ends in the same weights, bit for bit."""
    last, kept = run / f"step_{STEPS}", run.parent / f"{run.name}_uninterrupted"
    shutil.rmtree(kept, ignore_errors=True)
    last.rename(kept)
    (run / "latest").unlink(missing_ok=True)
    train(method, data, run)
    name = weights_file(kept).name
    before, after = load_file(kept / name), load_file(last / name)
    return before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)


def weights_file(folder: Path) -> Path:
    """The adapter's or the model's weights."""
    adapter = folder / "adapter_model.safetensors"
    return adapter if adapter.exists() else folder / "model.safetensors"


def loads(folder: Path) -> bool:
    """Whether plain ``transformers`` or ``peft`` loads the weights and gives finite logits."""
    config = folder / "adapter_config.json"
    model: nn.Module
    if config.exists():
        base = json.loads(config.read_text())["base_model_name_or_path"]
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    return bool(model(input_ids=tensor([[1, 2, 3]])).logits.isfinite().all())


def main() -> None:
    """Prints one row a method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source-dir", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--output-dir", type=Path, required=True)
    given = parser.parse_args()
    data = given.output_dir / "data"
    tasks = ("algebra", "word_problems", "number_theory")
    innerloop(
        "data", "prepare", "math-science", "--source-dir", given.source_dir, "--output-dir", data,
        "--tasks", *tasks, "--holdout", tasks[-1], "--validate",
    )  # fmt: skip
    table = Table(
        "method", "step, in steps of sft", "missing metrics", "resumes bit for bit", "loads", "loss"
    )
    unit = 0.0
    for method in METHODS:
        run = given.output_dir / method
        records = train(method, data, run)
        seconds = median(record["perf/seconds"] for record in records)
        unit = unit or seconds
        innerloop(
            "evaluate", "--model-path", run, "--model-type", method.removesuffix("_sft"), "--data-dir", data,
            "--output-dir", given.output_dir / "evaluate" / method,
            "--n-shots", "0", "2", "--n-runs", "1", "--max-test-samples", "2", "--max-new-tokens", "32",
        )  # fmt: skip
        table.add_row(
            method,
            f"{seconds / unit:.1f}",
            ", ".join(missing_metrics(method, records)) or "none",
            "yes" if resumes(method, data, run) else "NO",
            "yes" if loads(run / f"step_{STEPS}") else "NO",
            f"{records[-1].get('meta/loss', records[-1].get('train/loss', float('nan'))):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
