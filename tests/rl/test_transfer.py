"""Transfer: what is frozen stays as it is bit for bit, what thaws does so on time, and shapes may differ."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.config import TransferConfig
from innerloop.rl.policy import LAYERS
from innerloop.rl.ppo_run import transfer
from innerloop.rl.transfer import FreezingPlan, transferred_policy
from rl.small import saved, tiny, weights

HEADS = {"actor", "critic"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained source, with room for fewer nodes and applications than the target has."""
    folder = tmp_path_factory.mktemp("source")
    return saved(folder / "source", tiny(folder, "family.nodes=[2,2]", "family.applications=[1,2]"))


def transferred(folder: Path, source: Path, rounds: int, *words: str) -> list[dict[str, Tensor]]:
    """The parameters at the beginning and after every round."""
    words = ("trainer.save_freq=1", "trainer.max_ckpt_to_keep=null", f"trainer.total_steps={rounds}", *words)
    transfer(tiny(folder, *words), source)
    return [weights(load_artifact(source).policy)] + [
        weights(load_artifact(folder / f"step_{number}").policy) for number in range(1, rounds + 1)
    ]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The layers of which every tensor differs; all of its tensors must have changed, or none."""
    found = {
        layer: {not before[n].equal(after[n]) for n in before if n.split(".")[0] == layer} for layer in LAYERS
    }
    assert all(len(kinds) == 1 for kinds in found.values()), found
    return {layer for layer, (moved,) in found.items() if moved}


def test_feature_extraction_changes_the_heads_alone(tmp_path: Path, source: Path) -> None:
    course = transferred(tmp_path, source, 3, "transfer.kind=feature_extraction")
    for before, after in pairwise(course):
        assert changed(before, after) == HEADS
    artifact = load_artifact(tmp_path)
    assert (artifact.training.way, artifact.training.source) == ("transfer", str(source))


def test_fine_tuning_changes_everything(tmp_path: Path, source: Path) -> None:
    course = transferred(tmp_path, source, 2, "transfer.kind=fine_tuning")
    for before, after in pairwise(course):
        assert changed(before, after) == set(LAYERS)


def test_layers_thaw_one_by_one_from_the_action_on(tmp_path: Path, source: Path) -> None:
    words = ("transfer.kind=layer_wise", "transfer.frozen_layers=[1,0,2]", "transfer.thaw_every=2")
    course = transferred(tmp_path, source, 7, *words)
    frozen = [set(LAYERS) - changed(*pair) for pair in pairwise(course)]
    encoders = {"application_encoder", "node_encoder"}
    assert frozen == [
        *[encoders | {"context"}] * 2,
        *[encoders] * 2,
        *[{"application_encoder"}] * 2,
        set(),
    ]


@pytest.mark.parametrize("kind", ["feature_extraction", "fine_tuning", "layer_wise"])
def test_a_layer_that_there_is_not_is_refused_before_anything_happens(
    tmp_path: Path, source: Path, kind: str
) -> None:
    folder = tmp_path / "run"
    config = tiny(folder, f"transfer.kind={kind}", "transfer.frozen_layers=[0,7]")
    with pytest.raises(InputError, match=r"no layer 7; there are: 0 application_encoder, .* 6 cost"):
        transfer(config, source)
    assert not folder.exists()


def test_a_plan_freezes_nothing_twice() -> None:
    plan = FreezingPlan(TransferConfig("layer_wise", (0, 0, 1), 1))
    assert [plan.frozen(done) for done in range(3)] == [
        ("application_encoder", "node_encoder"),
        ("application_encoder",),
        (),
    ]
    assert plan.frozen(99) == ()


def test_a_transferred_policy_has_the_weights_of_the_source_and_room_for_the_target(
    tmp_path: Path, source: Path
) -> None:
    config = tiny(tmp_path, "family.nodes=[5,7]", "family.applications=[3,4]")
    artifact = load_artifact(source)
    policy = transferred_policy(artifact, config)
    assert policy.layout == config.family.layout != artifact.policy.layout
    assert weights(policy).keys() == weights(artifact.policy).keys()
    assert not changed(weights(artifact.policy), weights(policy))
    with torch.no_grad():
        policy.task += 1
    assert not artifact.policy.task.any()


@pytest.mark.parametrize(
    "word", ["family.name=load_balancing", "policy.width=9", "policy.most=2", "policy.task_width=3"]
)
def test_a_source_of_another_kind_or_size_is_refused(tmp_path: Path, source: Path, word: str) -> None:
    with pytest.raises(InputError, match=r"the source policy is .*, the settings ask for .*; give both"):
        transfer(tiny(tmp_path / "run", word), source)


def test_the_distance_from_the_source_is_tracked(tmp_path: Path, source: Path) -> None:
    from innerloop.core.tracking import read_metrics
    from innerloop.rl.metrics import parameter_distance

    course = transferred(tmp_path, source, 2, "transfer.kind=feature_extraction")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    for row, after in zip(rows, course[1:], strict=True):
        for layer, distance in parameter_distance(course[0], after).items():
            assert row[f"transfer/parameter_distance_{layer}"] == pytest.approx(distance)
            assert (distance > 0) == (layer in HEADS | {"whole"})


def test_balancing_policies_transfer_too(tmp_path: Path) -> None:
    words = ("family.name=load_balancing", "transfer.kind=feature_extraction")
    own = saved(tmp_path / "source", tiny(tmp_path, *words, "family.regions=[1,1]", "family.nodes=[2,2]"))
    course = transferred(tmp_path / "run", own, 2, *words)
    assert changed(course[0], course[2]) == HEADS


def test_settings_are_those_of_the_run(tmp_path: Path, source: Path) -> None:
    config = tiny(tmp_path / "run", "trainer.total_steps=1", "transfer.kind=fine_tuning")
    transfer(config, source)
    assert load_artifact(tmp_path / "run").config == replace(config)
