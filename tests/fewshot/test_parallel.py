"""Few-shot training on two processes: methods with an inner loop share out the episodes, others refuse."""

from pathlib import Path

import torch

from fewshot.toy_methods import TOY_METHODS, packaged
from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError
from innerloop.core.parallel import World
from innerloop.fewshot.config import Config
from innerloop.fewshot.train import train
from processes import Processes, alone


def run(world: World, config: Config) -> None:
    train(config, world)


def config_of(name: str, folder: Path) -> Config:
    words = ("trainer.total_steps=2", "train.per_step=5", "trainer.test_freq=1", "test.validation_count=4")
    return TOY_METHODS[name].config(packaged(name), folder, *words)


def test_episodes_are_shared_out_and_the_run_is_that_of_one_process(
    two_processes: Processes, tmp_path: Path
) -> None:
    alone(run, config_of("maml", tmp_path / "one"))
    two_processes.run(run, config_of("maml", tmp_path / "two"))
    one, two = (RunState.read(tmp_path / name / "latest") for name in ("one", "two"))
    # A pass counts once for all the episodes of a call, and two processes make two calls of it.
    assert one.values["ledger"]["units"] == two.values["ledger"]["units"]
    for name, tensor in one.section("theta").items():
        torch.testing.assert_close(two.section("theta")[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_method_whose_step_is_one_pass_is_refused(two_processes: Processes, tmp_path: Path) -> None:
    for outcome in two_processes.outcomes(run, config_of("prototypical", tmp_path)):
        assert isinstance(outcome.error, InputError), outcome.trace
        assert "\n" not in str(outcome.error)
        assert "several processes cannot do together" in str(
            outcome.error
        ) or "a meta-step of 1 task cannot keep 2 processes busy" in str(outcome.error)
