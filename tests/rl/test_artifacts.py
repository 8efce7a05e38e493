"""A policy on disk: it comes back as it was, without pickles, and what is none is refused in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from innerloop.core.errors import InputError
from innerloop.rl.artifacts import Training, fresh_policy, load_artifact, save_artifact
from rl.small import saved, tiny, weights

INFO, WEIGHTS = "innerloop.json", "policy.safetensors"


@pytest.mark.parametrize("family", ["kubernetes_scaling", "load_balancing"])
def test_a_policy_comes_back_as_it_was(tmp_path: Path, family: str) -> None:
    config = tiny(tmp_path, f"family.name={family}", "family.max_pods=[2,3]", "trainer.seed=5")
    policy = fresh_policy(config)
    rates = {"task": torch.rand(2), "actor.0.weight": torch.rand(2)}
    training = Training("transfer", 7, 70, 1.25, "somewhere")
    save_artifact(tmp_path, policy, rates, config, training)
    again = load_artifact(tmp_path)
    before, after = weights(policy), weights(again.policy)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert again.rates.keys() == rates.keys()
    assert all(rates[name].equal(again.rates[name]) for name in rates)
    assert again.config == config
    assert again.training == training
    assert again.policy.layout == config.family.layout


def test_files_are_tensors_and_json(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", tiny(tmp_path))
    assert {path.name for path in folder.iterdir()} == {INFO, WEIGHTS}
    assert json.loads((folder / INFO).read_text())["domain"] == "rl"
    assert all(name.startswith("policy/") for name in load_file(folder / WEIGHTS))


def test_a_run_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    step = saved(tmp_path / "run" / "step_3", tiny(tmp_path))
    (tmp_path / "run" / "latest").symlink_to(step.name)
    assert load_artifact(tmp_path / "run").training == load_artifact(step).training


def test_a_fresh_policy_follows_from_the_seed_and_leaves_the_generator_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        weights(fresh_policy(tiny(tmp_path, f"trainer.seed={seed}"))) for seed in (1, 1, 2)
    )
    assert torch.get_rng_state().equal(state)
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["actor.0.weight"].equal(other["actor.0.weight"])


def test_what_is_no_policy_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = saved(tmp_path / "model", tiny(tmp_path))
    info = json.loads((whole / INFO).read_text())

    def refusal(name: str, change: object) -> str:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        change(folder)  # type: ignore[operator]
        with pytest.raises(InputError) as error:
            load_artifact(folder)
        line = str(error.value)
        assert "\n" not in line
        assert str(folder) in line
        return line

    def written(**changes: object) -> object:
        return lambda folder: (folder / INFO).write_text(json.dumps({**info, **changes}))

    def cut(file: str) -> object:
        return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-30])

    def other_shapes(folder: Path) -> None:
        values = {**info["config"], "policy": {**info["config"]["policy"], "width": 9}}
        (folder / INFO).write_text(json.dumps({**info, "config": values}))

    assert "is damaged" in refusal("cut info", cut(INFO))
    assert "is damaged" in refusal("cut weights", cut(WEIGHTS))
    assert "is damaged" in refusal("a list", lambda folder: (folder / INFO).write_text("[]"))
    assert "is damaged" in refusal(
        "no config", lambda f: (f / INFO).write_text('{"domain": "rl", "format": 1}')
    )
    assert "is damaged" in refusal("training", written(training={"way": "ppo"}))
    assert "its weights do not fit" in refusal("shapes", other_shapes)
    assert "no scaling policy that this release" in refusal("domain", written(domain="fewshot"))
    assert "no scaling policy that this release" in refusal("format", written(format=2))
    assert "policy.safetensors is missing" in refusal("weights", lambda folder: (folder / WEIGHTS).unlink())
    assert "innerloop.json is missing" in refusal("info", lambda folder: (folder / INFO).unlink())


def test_a_folder_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path / 'none'} holds no trained policy"):
        load_artifact(tmp_path / "none")
