"""Makes evaluation folders as `innerloop evaluate` leaves them, with numbers whose truth is known."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Scores = Mapping[str, Mapping[int, Sequence[float]]]
"""Values by task and budget, one a run."""


def write_evaluation(
    folder: Path,
    scores: Scores,
    *,
    method: str = "meta",
    control: bool = False,
    metric: str = "accuracy",
    gradient_passes: int | None = 1000,
    training: Sequence[Mapping[str, float]] | None = None,
    **about: Any,
) -> Path:
    """Writes results.jsonl, method.json and, when given, metrics.jsonl; `about` adds to method.json."""
    folder.mkdir(parents=True)
    lines = [
        result_line(task, budget, run, {"loss": 2 - value, metric: value})
        for task, budgets in scores.items()
        for budget, values in budgets.items()
        for run, value in enumerate(values)
    ]
    (folder / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if training is not None:
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in training))
    spent = None
    if gradient_passes is not None:
        spent = {"gradient_passes": gradient_passes, "tokens": 500 * gradient_passes}
    described = {
        "method": method,
        "label": about.pop("label", method.upper()),
        "control": control,
        "metric": metric,
        "training": {"metrics_file": None if training is None else "metrics.jsonl"},
        "ledger": spent,
        "adaptation": {"rule": "sgd", "learning_rate": 0.1, "steps": 5, "chosen_on": "validation tasks"},
        "seed": 0,
        "config": {},
        "versions": {"innerloop": "0.1.0"},
    }
    (folder / "method.json").write_text(json.dumps(described | about))
    return folder


def result_line(task: str, budget: int, run: int, metrics: Mapping[str, object]) -> str:
    """One line of results.jsonl."""
    return json.dumps(
        {
            "task": task,
            "budget": budget,
            "run": run,
            "metrics": metrics,
            "rows": 100,
            "seconds": 1.5 + 0.1 * budget,
            "tokens": 4000 + 64 * budget,
            "gradient_passes": 10 if budget else 0,
        }
    )


def simple_scores(
    level: Callable[[int, int], float], tasks: int = 8, budgets: Sequence[int] = (0, 4, 8)
) -> Scores:
    """Two runs a cell around level(task number, budget), equal and opposite noise."""
    return {f"task_{i}": {b: [level(i, b) - 0.01, level(i, b) + 0.01] for b in budgets} for i in range(tasks)}


TASKS = [
    "auto_and_commute", "banking", "credit_cards", "home", "kitchen_and_dining", "meta_commands",
    "small_talk", "travel", "utility", "work", "weather_and_time", "music", "insurance", "payroll", "insects",
    "minerals", "instruments", "tools", "fabrics", "vehicles",
]  # fmt: skip


def realistic_evaluations(root: Path) -> list[Path]:
    """Two challengers, a trained control, in-context use and the untrained model, on twenty tasks."""
    generator = np.random.default_rng(7)
    difficulty = dict(zip(TASKS, generator.normal(0, 0.09, len(TASKS)), strict=True))

    def scores(ceiling: float, rate: float, budgets: Sequence[int] = (0, 1, 2, 4, 8)) -> Scores:
        """Curves from chance, a quarter, towards a ceiling that differs from task to task."""
        found: dict[str, dict[int, list[float]]] = {}
        for task in TASKS:
            top = ceiling + difficulty[task] + generator.normal(0, 0.06)
            for budget in budgets:
                mean = 0.25 + (top - 0.25) * (1 - math.exp(-budget / rate))
                runs = generator.normal(mean, 0.02 if budget == 0 else 0.035, 3)
                found.setdefault(task, {})[budget] = [round(float(v), 4) for v in np.clip(runs, 0, 1)]
        return found

    def method(name: str, label: str, found: Scores, rate: float | None, **about: Any) -> Path:
        passes = about.pop("passes", 0)
        chosen = "validation tasks: dining, medicine"
        config = {"model": {"lora_rank": 8}, "meta": {"algorithm": name, "inner_lr": rate}}
        steps = None if rate is None else 10
        return write_evaluation(
            root / name,
            found,
            method=name,
            label=label,
            ledger=ledger(passes),
            config=config,
            versions={"innerloop": "0.1.0", "torch": "2.13.0"},
            adaptation={
                "rule": "none" if rate is None else "sgd",
                "learning_rate": rate,
                "steps": steps,
                "chosen_on": None if rate is None else chosen,
            },
            **about,
        )

    def training(gap: float, loss: float, joint: bool = False) -> list[dict[str, float]]:
        return [training_row(step, gap, loss, joint, generator) for step in range(1, 121)]

    control: dict[str, Any] = {"control": True}
    return [
        method(
            "meta_lora", "META-LORA (FOMAML)", scores(0.9, 1.6), 1.0, passes=1920, training=training(0.9, 1.4)
        ),
        method("reptile", "Reptile", scores(0.68, 2.2), 1.0, passes=1930, training=training(1.0, 1.5)),
        method(
            "lora_sft",
            "LoRA-SFT",
            scores(0.6, 4),
            0.5,
            passes=1920,
            training=training(1.1, 1.6, True),
            **control,
        ),
        method("icl", "In-context", scores(0.42, 3, (1, 2, 4, 8)), None, **control),
        method("base", "Base model", scores(0.58, 4.5), 1.0, **control),
    ]


def ledger(passes: int) -> dict[str, float]:
    """A plausible cost of so many gradient passes."""
    return {
        "gradient_passes": passes,
        "forward_passes": round(passes * 1.3),
        "tokens": passes * 2510,
        "seconds": passes * 0.24,
        "peak_memory_bytes": 2_140_000_000 if passes else 1_010_000_000,
        "trained_parameters": 460_800 if passes else 0,
        "checkpoint_bytes": 1_843_200 if passes else 0,
    }


def training_row(
    step: int, gap: float, loss: float, joint: bool, generator: np.random.Generator
) -> dict[str, float]:
    """One line of metrics.jsonl of a training that converges; held-out tasks every 20 steps."""
    decay = math.exp(-step / 35)
    row = {
        "step": step,
        "train/loss" if joint else "meta/loss": loss * (0.15 + decay) + generator.normal(0, 0.06),
    }
    if not joint:
        row["meta/avg_adaptation_gap"] = gap * (0.2 + decay) + generator.normal(0, 0.05)
        row["meta/avg_adaptation_gain"] = 0.9 * (1 - decay) + generator.normal(0, 0.06)
    if step % 20 == 0:
        row["eval/avg_adaptation_gap"] = gap * (0.3 + 0.9 * decay) + generator.normal(0, 0.03)
        row["eval/avg_adaptation_gain"] = (0.25 if joint else gap * 0.8) * (1 - decay)
        row["eval/loss"] = loss * (0.25 + decay) + generator.normal(0, 0.03)
    return row
