"""No inner loop: the gradient of the loss itself, and running statistics kept, saved and taken back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.toy import RegressionSource
from innerloop.core.checkpoint import RunState
from innerloop.core.errors import NonFiniteError
from innerloop.core.learner import InPlaceLearner
from innerloop.core.metagrad import Direct
from innerloop.core.sampler import EpisodeSampler
from innerloop.core.task import FixedTask
from innerloop.core.tracking import JsonlTracker, read_metrics
from innerloop.core.trainer import MetaTrainer, OuterSettings, RunSettings


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return (module(inputs).squeeze(-1) - targets).square().mean()


def trainer(folder: Path, steps: int, bad_draw: int | None = None) -> MetaTrainer:
    return MetaTrainer(
        InPlaceLearner(network(), loss),
        Direct(),
        EpisodeSampler([RegressionSource("one", 0.3, bad_draw=bad_draw)], 1, seed=0),
        OuterSettings(0.05, steps, "adam"),
        RunSettings(folder, save_every=0),
        lambda step: JsonlTracker(folder, step),
    )


def test_it_is_the_gradient_of_the_querys_loss() -> None:
    module = network()
    batch = (torch.randn(6, 2), torch.randn(6))
    got = Direct()(InPlaceLearner(module, loss), FixedTask("one", (), batch))
    expected = network()
    value = loss(expected, batch)
    value.backward()
    torch.testing.assert_close(got.query_loss, value.detach().reshape(1))
    for name, p in expected.named_parameters():
        torch.testing.assert_close(got.gradient[name], p.grad)


def test_running_statistics_are_gathered_once_a_step() -> None:
    module, by_hand = network(), network()
    learner = InPlaceLearner(module, loss)
    for seed in range(3):
        batch = (torch.randn(6, 2, generator=torch.Generator().manual_seed(seed)), torch.zeros(6))
        Direct()(learner, FixedTask("one", (), batch))
        by_hand(batch[0])
    for name, buffer in by_hand.named_buffers():
        torch.testing.assert_close(dict(module.named_buffers())[name], buffer)


def test_the_run_tracks_one_loss(tmp_path: Path) -> None:
    trainer(tmp_path, 3).fit()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert len(rows) == 3
    for row in rows:
        assert "train/loss" in row
        assert not [name for name in row if "adaptation" in name or name == "meta/loss"]


def test_running_statistics_are_part_of_the_state(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", 4)
    whole.fit()
    trainer(tmp_path / "halves", 2).fit()
    resumed = trainer(tmp_path / "halves", 4)
    resumed.fit()
    saved = RunState.read(tmp_path / "whole" / "step_4").section("buffers")
    assert set(saved) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert int(saved["1.num_batches_tracked"]) == 4
    for name, tensor in whole.learner.module.state_dict().items():
        assert resumed.learner.module.state_dict()[name].equal(tensor), name


def test_a_step_that_is_given_up_leaves_the_statistics_as_they_were(tmp_path: Path) -> None:
    good = trainer(tmp_path / "good", 2)
    good.fit()
    bad = trainer(tmp_path / "bad", 4, bad_draw=2)
    with pytest.raises(NonFiniteError, match=r"^loss of task 'one' is not finite at step 3"):
        bad.fit()
    for name, tensor in good.learner.buffers.items():
        assert bad.learner.buffers[name].equal(tensor), name
