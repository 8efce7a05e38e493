"""Meta-steps of any configuration on random tokens, run by memory benchmarks in processes of their own."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from innerloop.core.learner import Objective
from innerloop.core.sampler import EpisodeSampler
from innerloop.core.signals import StopRequest
from innerloop.core.task import Batch, FixedTask, MicroBatches, pieces
from innerloop.core.trainer import MetaTrainer, RunSettings
from innerloop.llm.algorithms import (
    build_inner_loop,
    build_learner,
    build_strategy,
    model_spec,
    outer_settings,
    set_modes,
)
from innerloop.llm.config import Config
from innerloop.llm.data.tokens import TokenizedRow, collate
from innerloop.llm.estimate import RowShape
from innerloop.llm.model import LoadedModel, load_model


class Called(nn.Module):
    """A loss of a model as a module, so that ``functional_call`` can be given the point it is taken at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Objective, batch: Batch) -> Tensor:
        """The loss of a whole batch, its pieces one after another."""
        return torch.stack([objective(self.model, piece) for piece in pieces(batch)]).sum()


class RandomRows:
    """A task of random tokens, all rows of the same shape."""

    name = "random"

    def __init__(self, config: Config, shape: RowShape, vocabulary: int) -> None:
        self.config, self.shape, self.vocabulary = config, shape, vocabulary
        self.generator = torch.Generator().manual_seed(0)

    def draw(self) -> FixedTask:
        """Fresh rows."""
        meta = self.config.meta
        support = [self._batch(meta.inner_batch_size) for _ in range(meta.num_inner_steps)]
        return FixedTask(self.name, support, self._batch(meta.query_batch_size))

    def _batch(self, count: int) -> Batch:
        shape, data = self.shape, self.config.data
        mask = (False,) * (shape.tokens - shape.answer) + (True,) * shape.answer
        ids = torch.randint(0, self.vocabulary, (count, shape.tokens), generator=self.generator)
        rows = [TokenizedRow(tuple(row), mask) for row in ids.tolist()]
        return MicroBatches(collate(rows, 0, micro_tokens=data.micro_batch_tokens))

    def state_dict(self) -> dict[str, int]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Nothing to take up."""


def meta_steps(
    config: Config, shape: RowShape, count: int = 2, loaded: LoadedModel | None = None
) -> list[float]:
    """Meta-steps of the trainer; in the second the optimizer's state is in memory from the start.

    Returns:
        The norm of each step's meta-gradient.
    """
    loaded = load_model(model_spec(config)) if loaded is None else loaded
    set_modes(config, loaded.model)
    learner = build_learner(config, loaded.model)
    source = RandomRows(config, shape, loaded.model.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        trainer = MetaTrainer(
            learner,
            build_strategy(config.meta, build_inner_loop(config.meta, list(learner.theta))),
            EpisodeSampler([source], config.meta.meta_batch_size, seed=0),
            outer_settings(config),
            RunSettings(Path(folder)),
            _no_tracker,
        )
        # Steps without fit(), which would save gigabytes at the end.
        return [trainer._meta_step(stop)["meta/grad_norm"] for _ in range(count)]


def _no_tracker(_step: int) -> NoReturn:
    raise AssertionError("nothing is tracked here")
