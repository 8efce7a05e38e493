"""Adapting: from where, by how much, and that the artifact stays as it was."""

from pathlib import Path

import pytest
import torch

from innerloop.core.errors import InputError
from innerloop.rl.adapt import adapt
from innerloop.rl.adapted import adapt_to_one
from innerloop.rl.artifacts import Artifact, load_artifact
from innerloop.rl.evaluate import Trial, judge
from innerloop.rl.rollout import play, silence
from innerloop.rl.simulator.scenario import Scenario
from rl.small import saved, tiny, weights

WAYS = ("ppo", "transfer", "meta")
every_way = pytest.mark.parametrize("way", WAYS)


def artifact_of(folder: Path, way: str, *words: str) -> Artifact:
    return load_artifact(saved(folder / way, tiny(folder, *words), way))


def clusters_of(artifact: Artifact, count: int = 2) -> list[Scenario]:
    return [artifact.config.family.split("test").scenario(number) for number in range(count)]


@every_way
def test_before_any_episode_the_parameters_are_the_artifact_s(tmp_path: Path, way: str) -> None:
    artifact = artifact_of(tmp_path, way)
    before = weights(artifact.policy)
    found = adapt(artifact, clusters_of(artifact), [1, 2], [0, 2], 1e-3)
    assert list(found) == [0, 2]
    for name, start in before.items():
        assert found[0][name].equal(start.expand(2, *start.shape))
    moved = [name for name in before if not found[2][name].equal(found[0][name])]
    assert moved


@every_way
def test_the_artifact_stays_as_it_was(tmp_path: Path, way: str) -> None:
    artifact = artifact_of(tmp_path, way)
    before = weights(artifact.policy)
    adapt(artifact, clusters_of(artifact), [1, 2], [1], 1e-2)
    after = weights(artifact.policy)
    assert all(before[name].equal(after[name]) for name in before)


@every_way
def test_each_cluster_is_adapted_to_on_its_own(tmp_path: Path, way: str) -> None:
    artifact = artifact_of(tmp_path, way)
    both = clusters_of(artifact)
    together = adapt(artifact, both, [1, 2], [1, 2], 1e-2)
    alone = adapt(artifact, both[1:], [2], [1, 2], 1e-2)
    for count in (1, 2):
        for name, params in together[count].items():
            torch.testing.assert_close(params[1:], alone[count][name], rtol=1e-4, atol=1e-6)
    assert not together[2]["task"][0].equal(together[2]["task"][1])


@every_way
def test_measuring_on_the_way_changes_nothing(tmp_path: Path, way: str) -> None:
    artifact = artifact_of(tmp_path, way)
    often = adapt(artifact, clusters_of(artifact, 1), [1], [0, 1, 2, 3], 1e-2)
    once = adapt(artifact, clusters_of(artifact, 1), [1], [3], 1e-2)
    assert list(once) == [3]
    assert all(params.equal(once[3][name]) for name, params in often[3].items())


def test_a_transferred_policy_keeps_frozen_what_was_frozen(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, "transfer", "transfer.kind=feature_extraction")
    found = adapt(artifact, clusters_of(artifact), [1, 2], [0, 2], 1e-2)
    moved = {name.split(".")[0] for name in found[0] if not found[0][name].equal(found[2][name])}
    assert moved == {"actor", "critic"}


@pytest.mark.parametrize("episodes", [[1, 0], [0, 0], [-1, 1], [2, 1, 3]])
@every_way
def test_numbers_that_do_not_rise_are_refused(tmp_path: Path, way: str, episodes: list[int]) -> None:
    artifact = artifact_of(tmp_path, way)
    with pytest.raises(InputError, match="adaptation_episodes must be different, rising and at least 0"):
        adapt(artifact, clusters_of(artifact), [1, 2], episodes, 1e-3)


def test_numbers_between_two_inner_steps_are_refused(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, "meta", "meta.support_episodes=3")
    with pytest.raises(InputError, match="adapts on 3 episodes at a time, so it cannot be measured after 5"):
        adapt(artifact, clusters_of(artifact), [1, 2], [0, 3, 5], 1e-3)
    assert list(adapt(artifact, clusters_of(artifact), [1, 2], [0, 3, 6], 1e-3)) == [0, 3, 6]


def test_judging_plays_each_policy_on_its_own_cluster(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, "ppo")
    given = clusters_of(artifact)
    policy, steps = artifact.policy, artifact.config.family.steps
    with torch.no_grad():
        policy.actor[-1].bias += torch.tensor([0.0, 0, 0, 0, 0, 0, 9])  # adds the most, always
    start = weights(policy)
    params = {name: torch.stack([p, torch.zeros_like(p)]) for name, p in start.items()}
    returns, violations = judge(artifact, params, [Trial(s, 0, (5, 6, 7)) for s in given])
    for number, scenario in enumerate(given):
        policy.load_state_dict({name: p[number] for name, p in params.items()})
        played = play(
            policy,
            [scenario] * 3,
            (5, 6, 7),
            artifact.config.control,
            policy.layout,
            silence(policy, 3, steps),
        )
        assert returns[number] == pytest.approx(played.returns.mean())
        assert violations[number] == pytest.approx(played.violations.mean())
    assert returns[0] != returns[1]


@every_way
def test_adapting_to_one_cluster_saves_a_policy_that_does_as_it_was_measured(
    tmp_path: Path, way: str
) -> None:
    model = saved(tmp_path / "model", tiny(tmp_path, "test.episodes=2"), way)
    result = adapt_to_one(model, tmp_path / "out", "validation", 3, 4, seed=1)
    assert result.cluster == "kubernetes_scaling/validation/3"
    assert result.folder == tmp_path / "out" / "step_4"
    again = load_artifact(tmp_path / "out")
    assert (again.training.way, again.training.source) == (way, str(model))
    before, after = weights(load_artifact(model).policy), weights(again.policy)
    assert any(not before[name].equal(after[name]) for name in before)
    # From there on it begins where it was measured: the saved policy is the adapted one.
    further = adapt_to_one(tmp_path / "out", tmp_path / "again", "validation", 3, 1, seed=1)
    assert further.before == pytest.approx(result.after)
    assert further.violations_before == pytest.approx(result.violations_after)


@pytest.mark.parametrize(("cluster", "episodes"), [(-1, 3), (0, 0)])
def test_a_cluster_or_number_of_episodes_that_cannot_be_is_refused(
    tmp_path: Path, cluster: int, episodes: int
) -> None:
    model = saved(tmp_path / "model", tiny(tmp_path), "meta")
    with pytest.raises(InputError, match="--cluster must be at least 0 and --episodes at least 1"):
        adapt_to_one(model, tmp_path / "out", "test", cluster, episodes, seed=0)
