"""What a run will need of memory, and why, from its settings and the model's shapes alone.

What stands in memory all the time is arithmetic on the parameters. What comes and goes with a pass (the
graph, the logits, gradients on their way) is counted by sending shapes through the code that trains.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from innerloop.core import params as vector
from innerloop.core.devices import pick_device
from innerloop.core.errors import InputError
from innerloop.core.inner import Adam
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import InPlaceLearner, Learner
from innerloop.core.live_memory import LiveMemory
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask, MicroBatches, Task
from innerloop.llm.abstract import abstract_model
from innerloop.llm.algorithms import build_inner_loop, build_learner, model_spec, outer_settings, set_modes
from innerloop.llm.config import Config
from innerloop.llm.data.tokens import TokenBatch
from innerloop.llm.prefix import frozen_layers

CUDA_CONTEXT = 500_000_000
"""What CUDA and its libraries take of a GPU before the first tensor: taken from experience, not counted."""

CPU_KERNELS = 75_000_000
"""What is resident after a first pass beyond all tensors and what was loaded before it: measured."""

SLACK = 0.1
"""Share of a pass's own memory by which allocator and kernels exceed the sum of the tensors."""

HEAP_BLOCK = 32 << 20
"""Smaller blocks lie in the C library's heap when freed; larger ones go back to the system at once."""


@dataclass(frozen=True)
class RowShape:
    """How long the longest rows are.

    Args:
        tokens: of the whole row.
        answer: of its response.
    """

    tokens: int
    answer: int


@dataclass(frozen=True)
class Part:
    """One use of memory.

    Args:
        name: what it is.
        size: bytes on one device.
        why: how the number comes about.
    """

    name: str
    size: int
    why: str


@dataclass(frozen=True)
class Phase:
    """One stretch of a meta-step and all that is in memory at its height."""

    name: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """The sum in bytes."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Estimate:
    """What one process of a run needs.

    Args:
        model: its name.
        parameters: how many it has, tied ones once.
        adapted: how many of them are adapted.
        device: the kind of device that is planned for.
        world_size: processes.
        phases: of a meta-step, in their order.
        on_host: what lies in the host's memory beside a GPU.
    """

    model: str
    parameters: int
    adapted: int
    device: str
    world_size: int
    phases: tuple[Phase, ...]
    on_host: tuple[Part, ...]

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.size)


def estimate(config: Config, rows: RowShape | None = None, world_size: int = 1) -> Estimate:
    """Counts what a configuration needs on each device.

    Args:
        config: the settings.
        rows: the longest rows; without it rows of ``data.max_length``, response throughout: the upper bound.
        world_size: processes; under ``model.use_fsdp`` they share what is sharded.

    Raises:
        InputError: the model's config is not to be had, or the settings do not fit it.
    """
    shape = rows or RowShape(config.data.max_length, config.data.max_length - 1)
    if not 1 <= shape.answer < shape.tokens:
        raise InputError(
            f"a row of {shape.tokens} tokens cannot have a response of {shape.answer}; it needs at least one "
            "token, and one before it"
        )
    if world_size < 1:
        raise InputError(f"a run has at least one process, not {world_size}")
    device = pick_device(config.trainer.device)
    process = Part("process", CUDA_CONTEXT, "CUDA's own, assumed")
    if device.type != "cuda":
        loaded = psutil.Process().memory_info().rss
        process = Part("process", loaded + CPU_KERNELS, "libraries as loaded now, and kernels' buffers")
    with abstract_model(model_spec(config)) as model:
        set_modes(config, model)
        learner = build_learner(config, model, batch_size=lambda _batch: 0)
        inner = build_inner_loop(config.meta, list(learner.theta))
        plan = _Plan(config, learner, inner, shape, world_size, device.type)
        return Estimate(
            model=config.model.partial_pretrain,
            parameters=sum(p.numel() for p in model.parameters()),
            adapted=sum(p.numel() for p in learner.theta.values()),
            device=device.type,
            world_size=world_size,
            phases=tuple(Phase(name, (process, *plan.standing(), *parts)) for name, parts in plan.phases()),
            on_host=tuple(plan.on_host()),
        )


class _Plan:
    """The parts of each phase of one configuration."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        inner: InnerLoop,
        shape: RowShape,
        world_size: int,
        device: str,
    ) -> None:
        self.config, self.learner, self.inner, self.shape = config, learner, inner, shape
        self.device, self.in_place = device, isinstance(learner, InPlaceLearner)
        shared = world_size if config.model.use_fsdp else 1
        self.frozen_shares = shared
        # Adapters are small and stay whole on every device.
        self.shares = shared if config.model.adapts == "full" else 1
        self.theta = list(learner.theta.values())
        self.point = _bytes(self.theta) * (1 if self.in_place else learner.tasks_at_once) // self.shares
        self.masters = 4 * sum(p.numel() for p in self.theta if _is_half(p)) // self.shares
        self.fine = sum(max(4, p.element_size()) * p.numel() for p in self.theta) // self.shares
        self.tasks = [self._task(f"{number}") for number in range(learner.tasks_at_once)]

    def standing(self) -> Iterable[Part]:
        """What every phase finds in memory."""
        module = self.learner.module
        frozen = [p for p in module.parameters() if not p.requires_grad]
        if frozen:
            size = _bytes(frozen) // self.frozen_shares
            yield Part("frozen weights", size, f"{_dtypes(frozen)}{_shared(self.frozen_shares)}")
        size = _bytes(self.theta) // self.shares
        yield Part("meta-parameters θ", size, f"{_dtypes(self.theta)}{_shared(self.shares)}")
        if self.masters:
            yield Part(
                "master copy of θ",
                self.masters,
                "float32, since half precision is too coarse for outer steps",
            )
        yield Part("sum of meta-gradients", self.fine, "float32, one buffer for all tasks")
        optimizer = outer_settings(self.config).optimizer
        if optimizer != "sgd":
            yield Part("optimizer state", 2 * self.fine, f"two moments of {optimizer}")
        if self.inner.rule.carries:
            size = 4 * _bytes(self.theta) // self.shares
            yield Part("carried moments", size, "two from the last meta-step, two summed for the next")
        if (room := self._frozen_states()) > 0:
            yield Part("frozen layers' states", room, "of each row, at most model.frozen_prefix_mib")
        if self.config.model.use_fsdp and self.frozen_shares > 1:
            yield Part(
                "gathered layers", _gathered(module), "two layers and what is outside of layers, whole"
            )

    def _frozen_states(self) -> int:
        """What is kept on the CPU of the layers below the lowest adapter, which run once for a row."""
        model = self.config.model
        module: Any = self.learner.module
        if model.adapts == "full" or model.use_fsdp or self.device != "cpu" or not frozen_layers(module):
            return 0
        return model.frozen_prefix_mib << 20

    def phases(self) -> Iterable[tuple[str, Sequence[Part]]]:
        """Each phase and what it adds."""
        algorithm = self.config.meta.algorithm
        held = list(self._held())
        if algorithm != "sft":
            yield "inner steps", [*held, *self._work(self._inner_steps, self._on_tape_in_work())]
        if algorithm != "reptile":
            yield "query gradient", [*held, *self._state(), *self._work(self._query_gradient)]
        else:
            yield "difference θ − φ", [*held, Part("difference", self.point, "one of the size of θ")]
        if algorithm == "maml":
            extra = Part("cotangents", 2 * self.point, "v and the rule's derivative of it")
            yield "Hessian-vector products", [*held, *self._state(), extra, *self._work(self._product)]
        if algorithm == "implicit_maml" and self.config.meta.implicit.cg_steps:
            extra = Part(
                "conjugate gradients", 6 * self.point, "target, solution, residual, direction, products"
            )
            yield "conjugate gradients", [*held, *self._state(), extra, *self._work(self._product)]
        yield "outer step", [Part("optimizer's scratch", self._optimizer_scratch(), "temporary tensors")]

    def on_host(self) -> Iterable[Part]:
        """The iterates that lie in host memory."""
        if self._iterates() and self._iterates_on_host():
            yield Part("iterates", self._iterates(), "points of the inner loop, pinned")

    def _held(self) -> Iterable[Part]:
        """What an excursion from θ keeps besides the work of the moment."""
        if self.in_place:
            without_master = _bytes(p for p in self.theta if not _is_half(p)) // self.shares
            if without_master:
                yield Part("copy of θ", without_master, "θ waits in it while the module moves")
        elif self.inner.steps > 1 and self.config.meta.algorithm != "sft":
            yield Part("inner point φ", self.point, "the adapted parameters")
        if self._iterates() and not self._iterates_on_host():
            yield Part("iterates", self._iterates(), f"points of {self.inner.steps} inner steps")
        if self.config.meta.algorithm == "implicit_maml":
            copies = 2 if self.in_place and not self.masters else 1
            yield Part("φ* and its anchor", copies * self.point, "points that the solve comes back to")

    def _iterates(self) -> int:
        """Points, and gradients where the rule's derivative needs them; the first point is θ itself."""
        if not self._records():
            return 0
        gradients = not self.inner.rule.linear or self.inner.rates.learned
        states = 2 if isinstance(self.inner.rule, Adam) else 0
        return (self.inner.steps - 1) * (1 + gradients + states) * self.point

    def _records(self) -> bool:
        algorithm = self.config.meta.algorithm
        return algorithm == "maml" or (algorithm == "fomaml" and self.inner.rates.learned)

    def _iterates_on_host(self) -> bool:
        return self.in_place and self.device == "cuda"

    def _on_tape_in_work(self) -> int:
        """What the steps that are sent through put on the tape; it is among the iterates already."""
        steps = self._steps_sent_through()
        return (steps - 1) * self._iterates() // max(1, self.inner.steps - 1)

    def _steps_sent_through(self) -> int:
        # A rule with moments has old and new ones together from its second step on.
        return min(self.inner.steps, 2 if isinstance(self.inner.rule, Adam) else 1)

    def _state(self) -> Iterable[Part]:
        if isinstance(self.inner.rule, Adam) and self.config.meta.algorithm != "sft":
            yield Part("inner rule's state", 2 * self.point, "two moments of the inner Adam")

    def _work(self, body: Callable[[Task, Params, Params], object], counted: int = 0) -> Iterable[Part]:
        """The memory of one pass, counted; ``counted`` bytes of it stand elsewhere."""
        heights = []
        head = self.learner.module.get_output_embeddings()  # type: ignore[operator]
        task = self.learner.bundle(self.tasks)
        total = self._zeros()
        with self.learner.excursion() as theta, LiveMemory(HEAP_BLOCK) as live:

            def note(*_: object) -> None:
                heights.append((live.now, live.small_now))

            hook = head.register_forward_pre_hook(note)
            try:
                body(task, theta, total)
            finally:
                hook.remove()
        # The hook runs again in recomputation and in each piece; the first pass has no gradients in it yet.
        graph, in_heap = heights[0]
        rest = max(0, live.peak - graph - counted)
        yield Part("activations", graph, "kept for the backward pass, up to the output layer")
        yield Part("logits and gradients", rest, "the loss's own tensors and gradients on their way")
        yield Part("slack", int(SLACK * live.peak) + self._kept_room(in_heap), "of allocator and kernels")

    def _kept_room(self, in_heap: int) -> int:
        """What the C library's heap keeps of a graph that is gone when the largest tensor's gradients come.

        Those of tied embeddings come twice and are summed. On a GPU PyTorch's own allocator uses it again.
        """
        return 0 if self.device == "cuda" else min(in_heap, 3 * max(_bytes([p]) for p in self.theta))

    def _inner_steps(self, task: Task, theta: Params, _total: Params) -> object:
        inner = replace(self.inner, steps=self._steps_sent_through())
        return inner.run(self.learner, task, theta, record=self._records())

    def _query_gradient(self, task: Task, theta: Params, total: Params) -> object:
        query = task.query(theta)
        if self.config.meta.algorithm in ("fomaml", "sft") and not self.inner.rates.learned:
            return self.learner.add_gradient(theta, query, total)
        return self.learner.gradient(theta, query)

    def _product(self, task: Task, theta: Params, _total: Params) -> object:
        direction = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
        return self.learner.hvp(theta, task.support(0, theta), vector.detached(direction))

    def _zeros(self) -> Params:
        """Stands for the sum of meta-gradients."""
        return {
            name: torch.zeros(p.shape, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in self.learner.theta.items()
        }

    def _optimizer_scratch(self) -> int:
        if outer_settings(self.config).optimizer == "sgd":
            return 0
        if self.device == "cuda":
            return self.fine  # all tensors are stepped at once
        return 2 * max(max(4, p.element_size()) * p.numel() for p in self.theta) // self.shares

    def _task(self, name: str) -> FixedTask:
        meta = self.config.meta
        support = self._batch(meta.inner_batch_size)
        return FixedTask(name, [support], self._batch(meta.query_batch_size))

    def _batch(self, rows: int) -> Batch:
        """The largest piece of a batch; a second one stands for all that follow.

        Packed rows that are kept apart need what rows without padding need.
        """
        micro_tokens, shape = self.config.data.micro_batch_tokens, self.shape
        most = rows if micro_tokens is None else min(rows, max(1, micro_tokens // shape.tokens))
        ids, targets = (
            torch.zeros(most, length, dtype=torch.long) for length in (shape.tokens, shape.answer)
        )
        piece = TokenBatch(
            input_ids=ids,
            position_ids=torch.zeros_like(ids),
            segment_ids=torch.ones_like(ids),
            targets=targets,
            target_weights=torch.ones(targets.shape),
            normalizer=torch.ones(()),
            shared=torch.zeros((), dtype=torch.long),
        )
        return MicroBatches([piece] * (2 if most < rows else 1))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _is_half(tensor: Tensor) -> bool:
    return tensor.element_size() < 4


def _dtypes(tensors: Iterable[Tensor]) -> str:
    return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))


def _shared(shares: int) -> str:
    return "" if shares == 1 else f", shared by {shares}"


def _gathered(module: nn.Module) -> int:
    """Two whole layers, one in use and one on its way, and all that is in no layer."""
    layers = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    sizes = [_bytes(layer.parameters()) for layer in layers]
    return 2 * max(sizes, default=0) + _bytes(module.parameters()) - sum(sizes)
