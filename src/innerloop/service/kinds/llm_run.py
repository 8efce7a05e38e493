"""Runs the meta-training of a language model."""

import json
from pathlib import Path
from typing import Any

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.core.tracking import read_metrics
from innerloop.llm.config import Config, config_from_dict, load_config, to_dict
from innerloop.llm.data.prepared import has_manifest, load_manifest, task_names
from innerloop.llm.train import train
from innerloop.service.kinds.examples import Example
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.library import data_by_name, model_by_name
from innerloop.service.kinds.llm import HeldOutLosses, LLMRequest, LLMResults
from innerloop.service.kinds.run_metrics import finite, last_metrics

SAVES, EVALUATIONS = 10, 5
"""Checkpoints of a run, and evaluations on its held-out tasks, about."""


def run(request: LLMRequest, place: Place) -> Finished[LLMResults]:
    """Trains, or goes on where it stopped. Held-out tasks are measured on the way and at the end.

    Raises:
        InputError: the request cannot be met: no such model or data, a row that is too long.
        NonFiniteError: a loss became NaN or infinite.
        Interrupted: a signal came; all is saved to go on from.
    """
    if request.tasks is None:
        data = data_by_name(place, str(request.data))
    else:
        data = place.folder / "data"
        for name, task in request.tasks.items():
            _write(data / name / "support.jsonl", task.support)
            _write(data / name / "query.jsonl", task.query)
    trained = train(_config(request, place, data))
    rows = read_metrics(trained.metrics)
    last = last_metrics(trained.metrics)
    results = LLMResults(
        meta_loss=last.get("meta/loss", last.get("train/loss")),
        gradient_norm=last.get("meta/grad_norm"),
        training=last,
        held_out={name: _held_out(rows[-1], name) for name in request.held_out_tasks},
        tokens=int(sum(row["perf/tokens"] for row in rows)),
        training_seconds=sum(row["perf/seconds"] for row in rows),
    )
    return Finished(results, trained.checkpoint)


def _config(request: LLMRequest, place: Place, data: Path) -> Config:
    """The algorithm's packaged settings, changed as the request says."""
    settings = to_dict(load_config(request.algorithm))
    total = request.total_episodes
    settings["model"]["partial_pretrain"] = model_by_name(place, request.model)
    settings["data"] |= {"path": str(data), "seed": request.seed}
    settings["meta"] |= {"tasks": _training_tasks(request, data), "eval_tasks": list(request.held_out_tasks)}
    settings["meta"] |= _given(
        inner_lr=request.inner_lr,
        num_inner_steps=request.adaptation_steps,
        meta_batch_size=request.meta_batch_size,
    )
    if request.algorithm == "reptile_sft":
        settings["meta"] |= _given(reptile_epsilon=request.outer_lr)
    else:
        settings["optim"] |= _given(lr=request.outer_lr)
    settings["trainer"] |= {
        "seed": request.seed,
        "total_steps": total,
        "save_freq": max(1, total // SAVES),
        "test_freq": max(1, total // EVALUATIONS) if request.held_out_tasks else -1,
        "logger": ["console"],
        "default_local_dir": str(place.run),
        "max_ckpt_to_keep": 1,
    }
    return config_from_dict(settings, "the job's request")


def _training_tasks(request: LLMRequest, data: Path) -> list[str]:
    """All that are not held out.

    Raises:
        InputError: none is left, or a held-out task is not there.
    """
    names = task_names(data)
    for name in request.held_out_tasks:
        if name not in names:
            raise InputError(f"held_out_tasks: there is no task '{name}'; there are: {', '.join(names)}")
    usable = load_manifest(data).names("train") if has_manifest(data) else names
    left = [name for name in usable if name not in request.held_out_tasks]
    if not left:
        raise InputError("held_out_tasks leaves no task to train on")
    return left


def _held_out(row: dict[str, float], name: str) -> HeldOutLosses:
    def value(key: str) -> float | None:
        return finite(row[f"eval/{name}/{key}"])

    query, gain = value("query_loss"), value("adaptation_gain")
    return HeldOutLosses(
        support_loss=value("support_loss"),
        query_loss_before=None if query is None or gain is None else query + gain,
        query_loss=query,
        adaptation_gain=gain,
        adaptation_gap=value("adaptation_gap"),
    )


def _write(file: Path, rows: tuple[Example, ...]) -> None:
    lines = (json.dumps({"prompt": row.prompt, "response": row.response}) + "\n" for row in rows)
    write_whole(file, "".join(lines))


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are set."""
    return {key: value for key, value in settings.items() if value is not None}
