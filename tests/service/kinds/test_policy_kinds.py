"""Jobs that train scaling policies: from request to results, through a stop, and with sources."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError, Interrupted
from innerloop.core.tracking import read_metrics
from innerloop.rl import evaluate as evaluation_module
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.kept import KeptMeasurements
from innerloop.rl.metrics import parameter_distance
from innerloop.rl.records import HINDSIGHT, RANDOM, SCRATCH, read_evaluation
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.held_out import CurvePoint, PolicyResults
from innerloop.service.kinds.kind import Finished, Place, SourceJob
from innerloop.service.kinds.meta import MetaResults
from innerloop.service.kinds.policy_running import TRAINED
from innerloop.service.kinds.tasks import TrainingResults
from innerloop.service.kinds.transfer import TransferResults
from service.kinds.running import body, run, source, stopped_at, untimed_results, untimed_rows

BALANCING = {"load_balancing": {"steps": 6, "nodes": 3}}
Ran = Mapping[Kind, tuple[Place, Finished[Any]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SourceJob:
    """A job of PPO that completed."""
    place = Place(tmp_path_factory.mktemp("jobs") / "source")
    return source(Kind.TASKS, run(Kind.TASKS, place))


@pytest.fixture(scope="module")
def sources(trained: SourceJob) -> dict[str, SourceJob]:
    """What a transfer starts from; its target was never run."""
    target = body(Kind.TASKS, task_distribution={"kubernetes_scaling": {"max_pods": 12, "steps": 8}})
    settings = KINDS[Kind.TASKS].request.model_validate(target).model_dump(mode="json")
    return {"source_task_id": trained, "target_task_id": SourceJob(settings, None)}


def place_of(kind: Kind, folder: Path, sources: dict[str, SourceJob]) -> Place:
    return Place(folder / str(kind), sources if kind is Kind.TRANSFER else {})


RL = (Kind.TASKS, Kind.TRANSFER, Kind.META)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, sources: dict[str, SourceJob]) -> Ran:
    """The example of every kind, run without a stop."""
    folder = tmp_path_factory.mktemp("ran")
    places = {kind: place_of(kind, folder, sources) for kind in RL}
    return {kind: (place, run(kind, place)) for kind, place in places.items()}


def curve(place: Place, name: str) -> list[tuple[int, float, float]]:
    evaluation = read_evaluation(place.folder / "evaluation")
    means, violations = evaluation.curve(name), evaluation.violations(name)
    return [
        (count, mean.mean, share.mean)
        for count, mean, share in zip(evaluation.episodes, means, violations, strict=True)
    ]


def points(given: list[CurvePoint]) -> list[tuple[int, float, float]]:
    return [(point.episodes, point.mean, point.slo_violations) for point in given]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from numbers(entry)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("kind", RL)
def test_results_are_those_of_the_evaluation(ran: Ran, kind: Kind) -> None:
    place, finished = ran[kind]
    results: PolicyResults = finished.results
    evaluation = read_evaluation(place.folder / "evaluation")
    figures = evaluation.figures(TRAINED)
    assert points(results.adaptation_curve) == curve(place, TRAINED)
    assert points(results.scratch_curve) == curve(place, SCRATCH)
    assert results.slo_violations == results.adaptation_curve[-1].slo_violations
    assert list(results.task_performance.values()) == evaluation.method(TRAINED).by_cluster(-1).tolist()
    assert list(results.task_performance) == [f"kubernetes_scaling/test/{number}" for number in (0, 1)]
    assert results.baselines.keys() == {"static", RANDOM, "hpa 50 %", "hpa 70 %", HINDSIGHT}
    assert all(value == curve(place, name)[0][1] for name, value in results.baselines.items())
    assert (results.adaptation_speed.episodes, results.adaptation_speed.area) == (
        figures.speed.episodes,
        figures.speed.area,
    )
    random, best = results.baselines[RANDOM], results.baselines[HINDSIGHT]
    reached = results.adaptation_curve[-1].mean
    assert results.adaptation_accuracy == pytest.approx((reached - random) / (best - random))
    assert results.environment_steps == load_artifact(finished.model).training.environment_steps > 0


@pytest.mark.parametrize("kind", RL)
def test_results_are_numbers_that_json_has(ran: Ran, kind: Kind) -> None:
    finished = ran[kind][1]
    kept = json.loads(finished.results.model_dump_json())
    assert all(math.isfinite(value) for value in numbers(kept))
    assert KINDS[kind].results.model_validate(kept) == finished.results


@pytest.mark.parametrize("kind", RL)
def test_a_run_is_as_long_as_asked_and_its_model_is_in_its_folder(ran: Ran, kind: Kind) -> None:
    place, finished = ran[kind]
    total = KINDS[kind].total(KINDS[kind].request.model_validate(body(kind)))
    assert [row["step"] for row in read_metrics(place.run / "metrics.jsonl")] == list(range(1, total + 1))
    assert finished.model == place.run / f"step_{total}"
    assert load_artifact(place.run).config.family.max_pods == (4, 8) or kind is Kind.TRANSFER


def test_what_was_asked_reaches_the_domain(ran: Ran) -> None:
    config = load_artifact(ran[Kind.TASKS][0].run).config
    assert (config.ppo.lr, config.ppo.clusters, config.family.steps) == (1e-3, 4, 10)
    assert (config.test.clusters, config.test.episodes, config.test.adaptation_episodes) == (2, 2, (0, 1))
    config = load_artifact(ran[Kind.TRANSFER][0].run).config
    assert (config.transfer.kind, config.transfer.frozen_layers, config.transfer.thaw_every) == (
        "layer_wise",
        (0, 1),
        1,
    )
    # The policy from scratch is not held back by a lower rate than the transferred one has.
    assert config.ppo.lr == config.test.fine_tuning_lr == 1e-3
    config = load_artifact(ran[Kind.META][0].run).config
    meta = config.meta
    assert (meta.algorithm, meta.inner_lr, config.optim.lr) == ("fomaml", 0.01, 0.001)
    assert (meta.inner_steps, meta.clusters, meta.repeats) == (2, 2, 1)


def test_a_training_tells_its_last_round(ran: Ran) -> None:
    place, finished = ran[Kind.TASKS]
    results: TrainingResults = finished.results
    last = read_metrics(place.run / "metrics.jsonl")[-1]
    assert results.training == {name: value for name, value in last.items() if name != "step"}
    assert "return" in results.training


def test_a_transfer_tells_what_it_brought_and_how_far_it_went(
    ran: Ran, sources: dict[str, SourceJob]
) -> None:
    place, finished = ran[Kind.TRANSFER]
    results: TransferResults = finished.results
    assert load_artifact(place.run).config.family.max_pods == (12, 12)
    assert load_artifact(place.run).training.source == str(sources["source_task_id"].model)
    (_, first, _), (_, last, _) = points(results.adaptation_curve)
    (_, scratch_first, _), (_, scratch_last, _) = points(results.scratch_curve)
    metric = results.transfer_metric
    assert metric.jumpstart == first - scratch_first
    assert metric.asymptotic_gain == last - scratch_last
    gained = (scratch_last - scratch_first) / 2
    if gained > 0:
        between = (first + last) / 2 - (scratch_first + scratch_last) / 2
        assert metric.area_ratio == pytest.approx(between / gained)
    else:
        assert metric.area_ratio is None
    before, after = (
        {name: p.detach() for name, p in load_artifact(path).policy.named_parameters()}
        for path in (sources["source_task_id"].model, finished.model)
        if path is not None
    )
    expected = parameter_distance(before, after)
    found = {"whole": results.parameter_distance.whole, **results.parameter_distance.layers}
    assert found == pytest.approx(expected)
    # Three rounds: both frozen, then the first alone, then none.
    assert all(value > 0 for value in found.values())


def test_layers_that_stay_frozen_do_not_move(tmp_path: Path, sources: dict[str, SourceJob]) -> None:
    place = Place(tmp_path, sources)
    results = run(Kind.TRANSFER, place, transfer_type="feature_extraction", total_episodes=1).results
    moved = {name for name, value in results.parameter_distance.layers.items() if value > 0}
    assert moved == {"actor", "critic"}


@pytest.mark.parametrize("algorithm", ["maml", "implicit_fomaml", "reptile"])
def test_every_meta_algorithm_runs_from_a_source(tmp_path: Path, trained: SourceJob, algorithm: str) -> None:
    place = Place(tmp_path, {"source_task_id": trained})
    changes = {"meta_algorithm": algorithm, "source_task_id": "a" * 24, "total_episodes": 2}
    finished = run(Kind.META, place, **changes)
    results: MetaResults = finished.results
    last = read_metrics(place.run / "metrics.jsonl")[-1]
    assert (results.meta_loss, results.gradient_norm) == (last["meta/loss"], last["meta/grad_norm"])
    assert results.gradient_norm
    training = load_artifact(place.run).training
    assert (training.way, training.source) == ("meta", str(trained.model))


def test_a_family_without_an_oracle_has_no_accuracy(tmp_path: Path) -> None:
    changes = {"task_distribution": BALANCING, "total_episodes": 1}
    results = run(Kind.TASKS, Place(tmp_path), **changes).results
    assert results.adaptation_accuracy is None
    assert next(iter(results.task_performance)) == "load_balancing/test/0"


def test_one_held_out_cluster_leaves_the_interval_open(tmp_path: Path) -> None:
    evaluation = {"clusters": 1, "episodes": 1, "adaptation_episodes": [0, 1]}
    results = run(Kind.TASKS, Place(tmp_path), total_episodes=1, evaluation=evaluation).results
    assert [(point.low, point.high) for point in results.adaptation_curve] == [(None, None)] * 2


@pytest.mark.parametrize("kind", RL)
def test_a_stopped_run_ends_like_one_that_was_not(
    ran: Ran, tmp_path: Path, sources: dict[str, SourceJob], kind: Kind
) -> None:
    whole_place, whole = ran[kind]
    place = place_of(kind, tmp_path, sources)
    with stopped_at(2), pytest.raises(Interrupted, match="SIGTERM"):
        run(kind, place)
    again = run(kind, place)
    assert untimed_results(again) == untimed_results(whole)
    assert untimed_rows(place) == untimed_rows(whole_place)
    left, right = RunState.read(again.model), RunState.read(whole.model)  # type: ignore[arg-type]
    assert left.tensors.keys() == right.tensors.keys()
    for name, tensor in left.tensors.items():
        # These runs draw nothing from PyTorch's own generator, whose state is that of the process.
        assert name.startswith("random/") or tensor.equal(right.tensors[name]), name


@pytest.mark.parametrize("kind", [Kind.TASKS, Kind.META])
def test_a_killed_run_ends_like_one_that_was_not(ran: Ran, tmp_path: Path, kind: Kind) -> None:
    code = (
        "import signal\n"
        "from pathlib import Path\n"
        "from innerloop.service.jobs.job import Kind\n"
        "from innerloop.service.kinds.kind import Place\n"
        "from service.kinds.running import run, stopped_at\n"
        "with stopped_at(3, signal.SIGKILL):\n"
        f"    run(Kind({str(kind)!r}), Place(Path({str(tmp_path)!r})))"
    )
    tests = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, tests])}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    place = Place(tmp_path)
    again = run(kind, place)
    assert untimed_results(again) == untimed_results(ran[kind][1])
    assert untimed_rows(place) == untimed_rows(ran[kind][0])


def test_a_stopped_evaluation_keeps_what_it_measured(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_add, real_measure = KeptMeasurements.add, evaluation_module._measure
    measured: list[str] = []

    def add_and_signal(self: KeptMeasurements, entry: Any) -> None:
        real_add(self, entry)
        os.kill(os.getpid(), signal.SIGTERM)

    def noted(name: str, *rest: Any) -> Any:
        measured.append(name)
        return real_measure(name, *rest)

    place = Place(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(KeptMeasurements, "add", add_and_signal)
        with pytest.raises(Interrupted):
            run(Kind.TASKS, place)
    monkeypatch.setattr(evaluation_module, "_measure", noted)
    again = run(Kind.TASKS, place)
    assert measured == [SCRATCH]
    assert untimed_results(again) == untimed_results(ran[Kind.TASKS][1])


def test_a_finished_run_that_is_run_again_finds_the_same(tmp_path: Path) -> None:
    first = run(Kind.TASKS, Place(tmp_path), total_episodes=1)
    assert run(Kind.TASKS, Place(tmp_path), total_episodes=1) == first


def test_a_source_without_a_model_is_refused(tmp_path: Path, sources: dict[str, SourceJob]) -> None:
    gone = replace(sources["source_task_id"], model=tmp_path / "gone")
    for source_job in (gone, replace(gone, model=None)):
        with pytest.raises(InputError, match="source_task_id"):
            run(Kind.TRANSFER, Place(tmp_path / "job", sources | {"source_task_id": source_job}))


def test_a_source_that_controls_something_else_is_refused(
    tmp_path: Path, sources: dict[str, SourceJob]
) -> None:
    settings = {"name": "balancing", "task_distribution": BALANCING}
    target = SourceJob(KINDS[Kind.TASKS].request.model_validate(settings).model_dump(mode="json"), None)
    with pytest.raises(InputError, match="source policy"):
        run(Kind.TRANSFER, Place(tmp_path, sources | {"target_task_id": target}))
