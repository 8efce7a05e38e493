"""Hyperparameter search with Optuna over a resumable SQLite study."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import optuna

from innerloop.core.errors import InputError
from innerloop.core.tracking import read_metrics
from innerloop.llm.config import load_config
from innerloop.llm.train import train

STUDY_FILE = "sweep.db"
BEST_FILE = "best.json"


@dataclass(frozen=True)
class Sweep:
    """What to search.

    Args:
        config_name: packaged settings.
        config_path: the user's file or folder.
        overrides: fixed settings, ``key=value``.
        space: the values to try for each key.
        metric: what to minimise; its last value in a run's metrics counts.
        trials: how many combinations at most; none tries them all.
        output_dir: where the study and the runs go.
        seed: decides the order in which combinations are tried.
    """

    config_name: str | None
    config_path: Path | None
    overrides: tuple[str, ...]
    space: Mapping[str, tuple[str, ...]]
    metric: str
    trials: int | None
    output_dir: Path
    seed: int = 0


@dataclass(frozen=True)
class SweepResult:
    """What the search found.

    Args:
        best: the best combination.
        value: its metric.
        finished: combinations tried in all, earlier calls included.
    """

    best: Mapping[str, str]
    value: float
    finished: int


def split_space(words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Divides ``key=value`` words into fixed settings and, where the value has commas, values to try.

    Commas inside brackets belong to a list value.
    """
    fixed, space = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"'{word}' is not key=value")
        if "," in value and not value.startswith(("[", "{")):
            space[key] = tuple(part for part in value.split(",") if part)
        else:
            fixed.append(word)
    return tuple(fixed), space


def run_sweep(sweep: Sweep) -> SweepResult:
    """Searches, or goes on with a search that was interrupted.

    Raises:
        InputError: nothing to search, or a combination that the settings refuse (before anything runs).
    """
    if not sweep.space:
        raise InputError("nothing to sweep; give a key several values, for example meta.inner_lr=1e-5,1e-4")
    combinations = list(product(*sweep.space.values()))
    for values in combinations:
        load_config(
            sweep.config_name, sweep.config_path, _words(sweep, dict(zip(sweep.space, values, strict=True)))
        )
    sweep.output_dir.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="sweep",
        storage=f"sqlite:///{sweep.output_dir / STUDY_FILE}",
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.GridSampler(
            {key: list(values) for key, values in sweep.space.items()}, seed=sweep.seed
        ),
    )
    wanted = len(combinations) if sweep.trials is None else min(sweep.trials, len(combinations))
    finished = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    if finished < wanted:
        study.optimize(lambda trial: _run(sweep, trial), n_trials=wanted - finished, catch=())
    result = SweepResult(dict(study.best_params), study.best_value, len(study.trials))
    (sweep.output_dir / BEST_FILE).write_text(
        json.dumps(
            {"best": dict(result.best), sweep.metric: result.value, "trials": result.finished}, indent=1
        )
    )
    return result


def _run(sweep: Sweep, trial: optuna.Trial) -> float:
    chosen = {key: str(trial.suggest_categorical(key, list(values))) for key, values in sweep.space.items()}
    # Named by what it tries, so that a trial cut short goes on from its checkpoint.
    name = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items()).replace("/", "-")
    words = [*_words(sweep, chosen), f"trainer.default_local_dir={sweep.output_dir / name}"]
    result = train(load_config(sweep.config_name, sweep.config_path, words))
    values = [row[sweep.metric] for row in read_metrics(result.metrics) if sweep.metric in row]
    if not values:
        raise InputError(
            f"no metric '{sweep.metric}' was tracked; for eval/ metrics set meta.eval_tasks "
            "and trainer.test_freq"
        )
    return values[-1] if math.isfinite(values[-1]) else math.inf


def _words(sweep: Sweep, chosen: Mapping[str, str]) -> list[str]:
    return [*sweep.overrides, *(f"{key}={value}" for key, value in chosen.items())]
