"""Evaluation: every method on the same episodes of the same clusters; nonsense is refused first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl import models
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.baselines import HorizontalPodAutoscaler, best_static
from innerloop.rl.evaluate import evaluate
from innerloop.rl.kept import KEPT_FILE
from innerloop.rl.metrics import parameter_distance
from innerloop.rl.records import HINDSIGHT, RANDOM, RECORD_FILE, SCRATCH, Evaluation
from innerloop.rl.rollout import play, silence
from innerloop.rl.simulator import Simulation
from rl.small import saved, tiny

SETTINGS = ("test.clusters=3", "test.seeds=2", "test.episodes=2", "test.seed=4")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    folder = tmp_path_factory.mktemp("evaluation")
    config = tiny(folder, *SETTINGS, "family.steps=25", "family.interval=30", "meta.inner_lr=0.3")
    paths = {way: saved(folder / way, config, way) for way in ("meta", "transfer")}
    return paths["meta"], evaluate(paths, None, "validation", "the command", folder / "found")


def judge_seeds(cluster: int) -> list[int]:
    return [derive_seed(4, "judge", cluster, episode) for episode in range(2)]


def test_everything_is_there_in_its_shape(found: tuple[Path, Evaluation]) -> None:
    evaluation = found[1]
    assert evaluation.names == (
        "meta",
        "transfer",
        SCRATCH,
        "static",
        RANDOM,
        "hpa 50 %",
        "hpa 70 %",
        HINDSIGHT,
    )
    assert (evaluation.family, evaluation.split, evaluation.command) == (
        "kubernetes_scaling",
        "validation",
        "the command",
    )
    assert (evaluation.clusters, evaluation.seeds, evaluation.episodes, evaluation.judged_on) == (
        3,
        2,
        (0, 2),
        2,
    )
    for measured in evaluation.methods:
        shape = (3, 2, 2) if measured.adapts else (3, 1, 1)
        for values in (np.asarray(measured.returns), np.asarray(measured.violations)):
            assert values.shape == shape
        assert (np.asarray(measured.returns) < 0).all()
        assert (np.asarray(measured.violations) >= 0).all()
        assert (measured.parameter_distance > 0) == measured.adapts


def test_an_unadapted_policy_is_judged_by_its_likeliest_actions(found: tuple[Path, Evaluation]) -> None:
    path, evaluation = found
    artifact = load_artifact(path)
    returns = np.asarray(evaluation.method("meta").returns)
    violations = np.asarray(evaluation.method("meta").violations)
    for cluster in range(3):
        scenario = artifact.config.family.split("validation").scenario(cluster)
        quiet = silence(artifact.policy, 2, scenario.steps)
        played = play(
            artifact.policy,
            [scenario] * 2,
            judge_seeds(cluster),
            artifact.config.control,
            artifact.policy.layout,
            quiet,
        )
        # The same for both seeds of adaptation, since nothing was adapted yet.
        assert returns[cluster, :, 0] == pytest.approx([played.returns.mean()] * 2)
        assert violations[cluster, :, 0] == pytest.approx([played.violations.mean()] * 2)
    assert (returns[..., 1] != returns[..., 0]).any()
    assert (returns[:, 0, 1] != returns[:, 1, 1]).any()


def test_baselines_are_judged_on_the_same_episodes(found: tuple[Path, Evaluation]) -> None:
    path, evaluation = found
    family = load_artifact(path).config.family
    for cluster in range(3):
        scenario = family.split("validation").scenario(cluster)
        # Ten steps of 30 s are the 300 s that Kubernetes looks back.
        controller = HorizontalPodAutoscaler(0.5, window=10)
        simulation = Simulation([scenario] * 2, judge_seeds(cluster))
        total = np.zeros(2)
        while not simulation.done:
            total += simulation.step(*controller.decide(simulation.snapshot())).reward
        assert evaluation.method("hpa 50 %").returns[cluster] == [[pytest.approx(total.mean())]]
        best = best_static(scenario, judge_seeds(cluster))[1]
        assert evaluation.method(HINDSIGHT).returns[cluster] == [[pytest.approx(best)]]
        assert (
            best >= evaluation.method("static").returns[cluster][0][0] - 1e-9
            or len(scenario.applications) > 1
        )


def test_the_same_evaluation_finds_the_same(found: tuple[Path, Evaluation], tmp_path: Path) -> None:
    path, evaluation = found
    again = evaluate({"meta": path}, None, "validation", "the command", tmp_path)
    assert again.method("meta") == evaluation.method("meta")
    assert again.method(SCRATCH) == evaluation.method(SCRATCH)
    assert again.method(RANDOM) == evaluation.method(RANDOM)
    other = evaluate({"meta": path}, replace(load_artifact(path).config.test, seed=5), "test", "", tmp_path)
    assert other.method("meta").returns != evaluation.method("meta").returns


def test_progress_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", tiny(tmp_path))
    told: list[tuple[str, int, int]] = []
    evaluate(
        {"mine": path}, None, "test", "", tmp_path, lambda name, done, total: told.append((name, done, total))
    )
    assert told == [("mine", 2, 2), (SCRATCH, 2, 2)]


def test_what_was_measured_before_a_stop_is_not_measured_again(tmp_path: Path) -> None:
    paths = {name: saved(tmp_path / name, tiny(tmp_path, "test.clusters=2"), "meta") for name in ("a", "b")}

    def stop(name: str, done: int, total: int) -> None:
        if name == "b":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(paths, None, "test", "", out, stop)
    assert [path.name for path in out.iterdir()] == [KEPT_FILE]
    told: list[str] = []
    evaluation = evaluate(paths, None, "test", "", out, lambda name, done, total: told.append(name))
    assert set(told) == {"b", SCRATCH}
    assert evaluation == evaluate(paths, None, "test", "", tmp_path / "whole")
    assert [path.name for path in out.iterdir()] == [RECORD_FILE]


def test_what_was_measured_of_another_question_is_measured_anew(tmp_path: Path) -> None:
    paths = {"a": saved(tmp_path / "a", tiny(tmp_path, "test.clusters=2"), "meta")}
    test = load_artifact(paths["a"]).config.test

    def stop(name: str, done: int, total: int) -> None:
        if name == SCRATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(paths, test, "test", "", tmp_path / "out", stop)
    told: list[str] = []
    other = replace(test, seed=9)
    evaluate(paths, other, "test", "", tmp_path / "out", lambda name, done, total: told.append(name))
    assert "a" in told


def test_a_damaged_file_of_measurements_is_named(tmp_path: Path) -> None:
    paths = {"a": saved(tmp_path / "a", tiny(tmp_path), "meta")}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / KEPT_FILE).write_text("{")
    with pytest.raises(InputError, match=r"is damaged .* delete it and evaluate again"):
        evaluate(paths, None, "test", "", tmp_path / "out")


def test_balancing_has_baselines_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", tiny(tmp_path, "family.name=load_balancing"), "meta")
    evaluation = evaluate({"mine": path}, None, "test", "", tmp_path)
    assert evaluation.names == (
        "mine",
        SCRATCH,
        "even",
        RANDOM,
        "least allocated",
        "balanced",
        "greedy latency",
    )
    assert evaluation.figures("mine").accuracy is None


def test_the_distance_is_that_of_the_parameters(tmp_path: Path) -> None:
    from innerloop.rl.adapt import adapt
    from rl.small import weights

    path = saved(tmp_path / "model", tiny(tmp_path, "test.clusters=1"), "meta")
    artifact = load_artifact(path)
    scenario = artifact.config.family.split("test").scenario(0)
    adapted = adapt(artifact, [scenario], [derive_seed(0, "adapt", 0, 0)], [0, 2], 1e-3)[2]
    moved = parameter_distance(weights(artifact.policy), {name: p[0] for name, p in adapted.items()})["whole"]
    measured = evaluate({"mine": path}, None, "test", "", tmp_path).method("mine")
    assert measured.parameter_distance == pytest.approx(moved)


@pytest.mark.parametrize("name", [SCRATCH, RANDOM, "static", "hpa 70 %", HINDSIGHT])
def test_a_policy_named_like_a_baseline_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "model", tiny(tmp_path))
    with pytest.raises(InputError, match=f"'{name}' is what one of the baselines is called"):
        evaluate({"mine": path, name: path}, None, "test", "", tmp_path)


@pytest.mark.parametrize("episodes", ["[0]", "[3]", "[1,3]"])
def test_episodes_that_make_no_curve_are_refused_before_anything_is_measured(
    tmp_path: Path, episodes: str
) -> None:
    path = saved(tmp_path / "model", tiny(tmp_path, f"test.adaptation_episodes={episodes}"))

    def told(*_: object) -> None:
        raise AssertionError("it was measured")

    with pytest.raises(
        InputError, match=r"test\.adaptation_episodes must begin with 0 and hold at least one"
    ):
        evaluate({"mine": path}, None, "test", "", tmp_path, told)


def test_policies_of_other_families_and_none_at_all_are_refused(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", tiny(tmp_path))
    second = saved(tmp_path / "second", tiny(tmp_path, "family.max_pods=[2,3]"))
    with pytest.raises(InputError, match="b was trained on another task family than a"):
        evaluate({"a": first, "b": second}, None, "test", "", tmp_path)
    with pytest.raises(InputError, match="name at least one trained policy"):
        evaluate({}, None, "test", "", tmp_path)


def test_models_are_named_on_the_command_line() -> None:
    assert models.named_models(["a=x", "b c=y=z"]) == {"a": Path("x"), "b c": Path("y=z")}
    for word in ("a", "=x", "a="):
        with pytest.raises(InputError, match=f"--model '{word}' is not of the form NAME=PATH"):
            models.named_models([word])
    with pytest.raises(InputError, match="--model names a twice"):
        models.named_models(["a=x", "a=y"])


def test_test_settings_are_those_of_the_first_model_with_some_set_anew(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", tiny(tmp_path, "test.clusters=7"))
    second = saved(tmp_path / "second", tiny(tmp_path, "test.clusters=9"))
    given = models.test_settings(
        {"a": first, "b": second}, ["test.seeds=3", "test.adaptation_episodes=[0,4]"]
    )
    assert (given.clusters, given.seeds, given.adaptation_episodes) == (7, 3, (0, 4))
    for word, line in (
        ("ppo.lr=1", r"evaluation takes test\.\* settings, not ppo"),
        ("test.cluster=1", r"'test\.cluster' \(command line\); the nearest known key is 'test\.clusters'"),
        ("test=1", r"test must be a section.*command line"),
        ("test.seeds=0", r"test\.seeds must be .*command line"),
    ):
        with pytest.raises(InputError, match=line):
            models.test_settings({"a": first}, [word])
