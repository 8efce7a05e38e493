"""A run of PPO: it improves, resumes to the bit, stops on a signal, and refuses what is not its own."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from innerloop.core.checkpoint import CheckpointFolder, RunState
from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.tracking import read_metrics
from innerloop.rl.artifacts import fresh_policy, load_artifact
from innerloop.rl.config import Config
from innerloop.rl.families import Alone
from innerloop.rl.meta import meta_train
from innerloop.rl.ppo import PPOTrainer
from innerloop.rl.ppo_run import train, transfer
from innerloop.rl.simulator import Scenario
from rl.small import saved, tiny, weights

ROUNDS = 6
LAYER_WISE = ("transfer.kind=layer_wise", "transfer.frozen_layers=[0,1]", "transfer.thaw_every=2")


def assert_same_end(left: Path, right: Path) -> None:
    one, other = RunState.read(left), RunState.read(right)
    assert one.tensors.keys() == other.tensors.keys()
    assert {name.split("/")[0] for name in one.tensors} == {"policy", "start", "optimizer", "cost_optimizer"}
    for name, tensor in one.tensors.items():
        assert tensor.equal(other.tensors[name]), name
    assert one.values["step"] == other.values["step"]


def untimed(folder: Path) -> list[dict[str, object]]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in ("perf/seconds", "time")} for row in rows]


@contextmanager
def stopped_after(rounds: int) -> Iterator[None]:
    """Sends this process SIGTERM within the round after so many."""
    real = PPOTrainer.round

    def round_and_signal(self: PPOTrainer) -> dict[str, float]:
        if self.done == rounds:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPOTrainer, "round", round_and_signal)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return saved(folder / "source", tiny(folder))


def settings(folder: Path, *words: str) -> Config:
    return tiny(folder, f"trainer.total_steps={ROUNDS}", *words)


# The second layer thaws at round 2, the first at round 4.
@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_an_interrupted_transfer_ends_like_the_uninterrupted_one(
    tmp_path: Path, source: Path, after: int
) -> None:
    whole = transfer(settings(tmp_path / "whole", *LAYER_WISE), source)
    config = settings(tmp_path / "halves", *LAYER_WISE)
    with stopped_after(after - 1), pytest.raises(Interrupted, match=f"round {after} is saved in "):
        transfer(config, source)
    assert CheckpointFolder(tmp_path / "halves").steps() == [after]
    halves = transfer(config, source)
    assert_same_end(whole.checkpoint, halves.checkpoint)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "halves")


@pytest.mark.parametrize("family", ["kubernetes_scaling", "load_balancing"])
def test_an_interrupted_training_ends_like_the_uninterrupted_one(tmp_path: Path, family: str) -> None:
    name = f"family.name={family}"
    whole = train(settings(tmp_path / "whole", name))
    with stopped_after(2), pytest.raises(Interrupted, match="SIGTERM received"):
        train(settings(tmp_path / "halves", name))
    halves = train(settings(tmp_path / "halves", name))
    assert_same_end(whole.checkpoint, halves.checkpoint)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "halves")


def test_what_a_run_says_and_saves(tmp_path: Path) -> None:
    result = train(settings(tmp_path, "trainer.save_freq=2", "trainer.max_ckpt_to_keep=2"))
    rows = read_metrics(result.metrics)
    assert [row["step"] for row in rows] == list(range(1, ROUNDS + 1))
    assert {"return", "value_loss", "approx_kl", "perf/seconds"} <= rows[0].keys()
    assert all(np.isfinite(row["return"]) and row["return"] < 0 for row in rows)
    assert result.checkpoint == tmp_path / f"step_{ROUNDS}"
    assert CheckpointFolder(tmp_path).steps() == [4, 6]
    training = load_artifact(tmp_path).training
    assert (training.way, training.steps, training.source) == ("ppo", ROUNDS, None)
    assert training.environment_steps == ROUNDS * 5 * 2  # rounds, control steps, clusters
    assert training.seconds > 0
    files = {path.name for path in result.checkpoint.rglob("*") if path.is_file()}
    assert files == {"innerloop.json", "policy.safetensors", "tensors.safetensors", "state.json"}


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = train(settings(tmp_path))
    stamp = (first.checkpoint / "policy.safetensors").stat().st_mtime_ns
    again = train(settings(tmp_path))
    assert again == first
    assert (first.checkpoint / "policy.safetensors").stat().st_mtime_ns == stamp


def test_a_folder_with_another_run_is_refused(tmp_path: Path, source: Path) -> None:
    train(settings(tmp_path))
    with pytest.raises(InputError, match=f"already holds step_{ROUNDS} of another run"):
        train(settings(tmp_path, "trainer.resume_mode=disable"))
    with pytest.raises(InputError, match="is of another kind of run or policy"):
        transfer(settings(tmp_path), source)
    with pytest.raises(InputError, match="is of another kind of run or policy"):
        train(settings(tmp_path, "policy.width=9"))


def test_what_meta_learning_left_is_not_taken_up(tmp_path: Path) -> None:
    meta_train(tiny(tmp_path, "trainer.total_steps=1"))
    with pytest.raises(InputError, match="is of another kind of run or policy"):
        train(settings(tmp_path))


def test_other_layers_to_freeze_are_no_way_to_go_on(tmp_path: Path, source: Path) -> None:
    transfer(tiny(tmp_path, "trainer.total_steps=2", *LAYER_WISE), source)
    for word in ("transfer.kind=fine_tuning", "transfer.frozen_layers=[0]", "transfer.thaw_every=1"):
        with pytest.raises(InputError, match="froze other layers; resume with the transfer section"):
            transfer(settings(tmp_path, *LAYER_WISE, word), source)
    # What is to come may be thawed otherwise than it was planned.
    transfer(settings(tmp_path, *LAYER_WISE, "transfer.thaw_every=3"), source)


def test_a_round_that_is_not_finite_is_taken_back(tmp_path: Path) -> None:
    first = train(tiny(tmp_path, "trainer.total_steps=1"))
    before = RunState.read(first.checkpoint)
    with pytest.raises(
        NonFiniteError, match=r"of task 'kubernetes_scaling' .* at step 2; .* round 1 is saved in "
    ):
        train(settings(tmp_path, "ppo.lr=1e30"))
    assert CheckpointFolder(tmp_path).steps() == [1]
    after = RunState.read(CheckpointFolder(tmp_path).path(1))
    assert all(tensor.equal(after.tensors[name]) for name, tensor in before.tensors.items())
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    train(settings(tmp_path))


def test_a_run_that_is_not_finite_from_the_start_saves_where_it_began(tmp_path: Path) -> None:
    config = settings(tmp_path, "ppo.lr=1e30")
    with pytest.raises(NonFiniteError, match="round 0 is saved in "):
        train(config)
    begun, fresh = weights(load_artifact(tmp_path).policy), weights(fresh_policy(config))
    assert all(begun[name].equal(fresh[name]) for name in fresh)


def test_what_a_transfer_began_with_is_kept(tmp_path: Path, source: Path) -> None:
    """A source may be trained further or be gone by the time that a run goes on."""
    transfer(settings(tmp_path / "whole"), source)
    other = saved(tmp_path / "other", tiny(tmp_path, "trainer.seed=8"))
    with stopped_after(2), pytest.raises(Interrupted):
        transfer(settings(tmp_path / "moved"), source)
    transfer(settings(tmp_path / "moved"), other)
    assert untimed(tmp_path / "moved") == untimed(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = train(settings(tmp_path)).checkpoint
    state = checkpoint / "trainer_state" / "tensors.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match=f"cannot resume from {checkpoint}"):
        train(tiny(tmp_path, "trainer.total_steps=9"))


def test_the_learning_rate_falls_to_nothing_over_the_run(tmp_path: Path) -> None:
    config = settings(tmp_path, "ppo.lr=0.01")
    trainer = PPOTrainer(fresh_policy(config), config.family.split("train"), config.control, config.ppo, 4, 0)
    rates = []
    for _ in range(4):
        trainer.round()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_rounds_are_episodes_of_their_own_and_follow_from_the_seed(tmp_path: Path) -> None:
    config = settings(tmp_path)

    def played(seed: int) -> list[float]:
        source = config.family.split("train")
        trainer = PPOTrainer(fresh_policy(config), source, config.control, config.ppo, None, seed)
        return [trainer.round()["return"] for _ in range(2)]

    assert played(1) == played(1) != played(2)
    assert len({*played(1), *played(2)}) == 4


def test_every_round_plays_members_that_were_not_played_before(tmp_path: Path) -> None:
    config = settings(tmp_path)
    members = config.family.split("train")
    asked: list[int] = []

    class Noting:
        def scenario(self, number: int) -> Scenario:
            asked.append(number)
            return members.scenario(number)

    trainer = PPOTrainer(fresh_policy(config), Noting(), config.control, config.ppo, None, 0)
    for done in range(3):
        asked.clear()
        trainer.round()
        assert asked[:2] == [2 * done, 2 * done + 1]


def test_it_learns_what_replicas_cost(tmp_path: Path) -> None:
    """With nothing but replicas to pay for, the fewest are the best."""
    words = ("family.steps=10", "family.latency_weight=[1e-6,1e-6]", "family.replica_weight=[0.3,0.3]")
    config = tiny(tmp_path, *words, "ppo.clusters=16", "ppo.batch_size=80", "ppo.epochs=5", "ppo.lr=0.01")
    only = Alone(config.family.split("train").scenario(0))
    trainer = PPOTrainer(fresh_policy(config), only, config.control, config.ppo, None, 0)
    returns = [trainer.round()["return"] for _ in range(12)]
    assert np.mean(returns[-2:]) > 0.75 * returns[0] > returns[0]


def test_state_is_plain(tmp_path: Path) -> None:
    checkpoint = train(settings(tmp_path)).checkpoint
    values = json.loads((checkpoint / "trainer_state" / "state.json").read_text())
    assert values["way"] == "ppo"
    assert (
        weights(load_artifact(checkpoint).policy).keys() == RunState.read(checkpoint).section("start").keys()
    )
