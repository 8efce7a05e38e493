"""Meta-learning runs: every algorithm trains, resumes to the bit, and saves what adapting needs."""

from pathlib import Path

import pytest
import torch

from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError
from innerloop.rl.adapt import adapt
from innerloop.rl.artifacts import fresh_policy, load_artifact
from innerloop.rl.config import Config
from innerloop.rl.meta import build_strategy, meta_train
from innerloop.rl.ppo_run import train
from rl.small import saved, tiny, weights

every_algorithm = pytest.mark.parametrize("algorithm", ["maml", "fomaml", "implicit_fomaml", "reptile"])
LEARNED = ("maml", "fomaml")


def settings(folder: Path, algorithm: str, steps: int, *words: str) -> Config:
    own = (f"meta.algorithm={algorithm}", f"trainer.total_steps={steps}", "meta.cg_steps=1", "optim.lr=0.05")
    return tiny(folder, *own, *words)


@every_algorithm
def test_a_resumed_run_ends_like_the_uninterrupted_one(tmp_path: Path, algorithm: str) -> None:
    whole = meta_train(settings(tmp_path / "whole", algorithm, 4))
    meta_train(settings(tmp_path / "halves", algorithm, 2))
    halves = meta_train(settings(tmp_path / "halves", algorithm, 4))
    left, right = RunState.read(whole.checkpoint), RunState.read(halves.checkpoint)
    assert left.tensors.keys() == right.tensors.keys()
    for name, tensor in left.tensors.items():
        assert tensor.equal(right.tensors[name]), name
    for name in ("step", "ledger", "sampler"):
        assert left.values[name] == right.values[name]
    assert left.values["step"] == 4


def test_meta_batches_that_are_used_again_are_played_once(tmp_path: Path) -> None:
    words = ("meta.repeats=2", "trainer.save_freq=2")
    whole = meta_train(settings(tmp_path / "whole", "fomaml", 4, *words))
    meta_train(settings(tmp_path / "halves", "fomaml", 2, *words))
    halves = meta_train(settings(tmp_path / "halves", "fomaml", 4, *words))
    left, right = RunState.read(whole.checkpoint), RunState.read(halves.checkpoint)
    assert all(tensor.equal(right.tensors[name]) for name, tensor in left.tensors.items())
    once = load_artifact(meta_train(settings(tmp_path / "once", "fomaml", 4)).checkpoint)
    twice = load_artifact(whole.checkpoint)
    assert 2 * twice.training.environment_steps == once.training.environment_steps
    for word in ("meta.surrogate=dice", "trainer.save_freq=3"):
        with pytest.raises(InputError, match=r"meta\.repeats"):
            meta_train(settings(tmp_path / "refused", "fomaml", 4, "meta.repeats=2", word))


@every_algorithm
def test_a_run_changes_the_policy_and_saves_it(tmp_path: Path, algorithm: str) -> None:
    config = settings(tmp_path, algorithm, 2)
    result = meta_train(config)
    artifact = load_artifact(result.checkpoint)
    before, after = weights(fresh_policy(config)), weights(artifact.policy)
    assert all(not before[name].equal(after[name]) for name in before)
    training = artifact.training
    assert (training.way, training.steps, training.source) == ("meta", 2, None)
    # Meta-steps, clusters, episodes for two inner steps and to be judged by, control steps.
    judged = 0 if algorithm == "reptile" else 2
    assert training.environment_steps == 2 * 2 * (2 * 1 + judged) * 5
    state = RunState.read(result.checkpoint).section("rates")
    assert artifact.rates.keys() == state.keys()
    assert all(rate.equal(state[name]) for name, rate in artifact.rates.items())


@every_algorithm
def test_rates_are_learned_where_there_is_a_gradient_for_them(tmp_path: Path, algorithm: str) -> None:
    config = settings(tmp_path, algorithm, 2)
    artifact = load_artifact(meta_train(config).checkpoint)
    if algorithm not in LEARNED:
        assert not artifact.rates
        return
    start = build_strategy(config.meta, artifact.policy).inner.rates.values
    assert start.keys() == artifact.rates.keys() == weights(artifact.policy).keys()
    moved = [name for name, rate in artifact.rates.items() if not torch.allclose(rate, start[name])]
    assert len(moved) > len(start) / 2


def test_rates_are_left_alone_if_so_asked(tmp_path: Path) -> None:
    artifact = load_artifact(
        meta_train(settings(tmp_path, "fomaml", 1, "meta.learn_inner_lr=false")).checkpoint
    )
    assert not artifact.rates


def test_the_learned_rates_are_what_adapting_uses(tmp_path: Path) -> None:
    artifact = load_artifact(meta_train(settings(tmp_path, "fomaml", 2)).checkpoint)
    scenario = artifact.config.family.split("test").scenario(0)

    def moved(factor: float) -> dict[str, torch.Tensor]:
        rates = {name: factor * rate for name, rate in artifact.rates.items()}
        found = adapt(
            type(artifact)(artifact.policy, rates, artifact.config, artifact.training),
            [scenario],
            [1],
            [0, 1],
            1e-3,
        )
        return {name: found[1][name] - found[0][name] for name in found[0]}

    once, none = moved(1.0), moved(0.0)
    assert all(not p.any() for p in none.values())
    twice = moved(2.0)
    for name, step in once.items():
        # One step of gradient descent is proportional to its rate.
        assert step.any(), name
        torch.testing.assert_close(twice[name], 2 * step, rtol=1e-3, atol=1e-6)


def test_the_vector_of_the_task_has_a_rate_of_its_own(tmp_path: Path) -> None:
    words = ("meta.learn_inner_lr=false", "meta.inner_lr=0", "meta.task_lr=1")
    artifact = load_artifact(meta_train(settings(tmp_path, "fomaml", 1, *words)).checkpoint)
    scenario = artifact.config.family.split("test").scenario(0)
    found = adapt(artifact, [scenario], [1], [0, 2], 1e-3)
    assert {name for name in found[0] if not found[0][name].equal(found[2][name])} == {"task"}


def test_what_meta_learning_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"meta\.cg_steps must be a whole number at least 0, not -1"):
        meta_train(settings(tmp_path / "a", "implicit_fomaml", 1, "meta.cg_steps=-1"))
    meta_train(settings(tmp_path / "b", "fomaml", 1))
    with pytest.raises(InputError, match="already holds step_1 of another run"):
        meta_train(settings(tmp_path / "b", "fomaml", 2, "trainer.resume_mode=disable"))
    with pytest.raises(InputError):
        meta_train(settings(tmp_path / "b", "fomaml", 2, "policy.width=9"))
    train(tiny(tmp_path / "c", "trainer.total_steps=1"))
    with pytest.raises(InputError):
        meta_train(settings(tmp_path / "c", "fomaml", 2))


def test_a_source_is_where_it_begins(tmp_path: Path) -> None:
    origin = saved(tmp_path / "source", tiny(tmp_path, "trainer.seed=9", "family.nodes=[2,2]"))
    config = settings(tmp_path / "run", "fomaml", 1, "optim.lr=1e-9")
    artifact = load_artifact(meta_train(config, origin).checkpoint)
    assert artifact.training.source == str(origin)
    begun, fresh = weights(load_artifact(origin).policy), weights(fresh_policy(config))
    for name, parameter in weights(artifact.policy).items():
        torch.testing.assert_close(parameter, begun[name], rtol=0, atol=1e-7)
    assert not begun["actor.0.weight"].equal(fresh["actor.0.weight"])
