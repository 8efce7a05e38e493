"""A model sharded over two processes trains as the whole one does on one.

Full parameters: the rows of a task are split over the holders. LoRA: the frozen base is sharded, and each
process has tasks of its own. Three tasks a meta-step leave one process without a task of its own at the end.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from torch import Tensor
from transformers import AutoModelForCausalLM

from end_to_end.workbench import Workbench, write_tasks
from innerloop.core import trainer
from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError, Interrupted, NonFiniteError
from innerloop.core.losses import TaskLosses
from innerloop.core.parallel import World
from innerloop.core.params import norm, subtract
from innerloop.core.tracking import read_metrics
from innerloop.llm.attention import keep_rows_apart
from innerloop.llm.config import load_config
from innerloop.llm.data.tokens import TokenizedRow, collate
from innerloop.llm.loss import response_loss
from innerloop.llm.row_split import part_of
from innerloop.llm.train import train
from processes import Processes, alone
from tiny_llama import tiny_llama

FULL = ("model.lora_rank=0", "model.lora_layers=null", "meta.inner_lr=0.1", "meta.learner=in_place")
FSDP = "model.use_fsdp=true"
OF_THE_MACHINE = ("perf/seconds", "perf/peak_memory_bytes")


@pytest.fixture(scope="module")
def bench(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("sharding")
    return Workbench(tiny_model, write_tasks(folder / "data"), folder)


def run(world: World, words: Sequence[str]) -> None:
    train(load_config("meta_lora", None, list(words)), world)


def settings(bench: Workbench, name: str, *more: str) -> list[str]:
    return bench.settings(
        name,
        "meta.meta_batch_size=3",
        "trainer.total_steps=2",
        "trainer.save_freq=-1",
        "optim.optimizer_type=sgd",
        "optim.lr=0.1",
        "meta.outer_lr=null",
        *more,
    )


def state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    found = RunState.read(folder / "latest")
    return dict(found.tensors), {k: v for k, v in found.values.items() if k != "seconds"}


def assert_same_run(left: Path, right: Path, tolerance: float) -> None:
    """The same counts and places exactly, the same numbers within a share of each tensor's largest."""
    (tensors, values), (others, other_values) = state(left), state(right)
    assert values == other_values
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        largest = float(tensor.abs().max()) if tensor.is_floating_point() else 0.0
        torch.testing.assert_close(others[name], tensor, rtol=0.0, atol=tolerance * largest, msg=name)
    for row, other in zip(
        read_metrics(left / "metrics.jsonl"), read_metrics(right / "metrics.jsonl"), strict=True
    ):
        told = {
            key: value for key, value in row.items() if key not in ("perf/seconds", "perf/peak_memory_bytes")
        }
        assert {key: other[key] for key in told} == pytest.approx(told, rel=1e-3, abs=1e-3)


# Sharded and whole

COMBINATIONS = {
    "fomaml": (*FULL, "meta.algorithm=fomaml"),
    "fomaml-packed": (*FULL, "meta.algorithm=fomaml", "data.pad_mode=no_padding"),
    "fomaml-in-pieces": (
        *FULL,
        "meta.algorithm=fomaml",
        "data.use_dynamic_bsz=true",
        "data.micro_batch_tokens=60",
        "model.enable_gradient_checkpointing=true",
    ),
    "reptile-adam": (
        *FULL,
        "meta.algorithm=reptile",
        "meta.inner_rule=adam",
        "meta.inner_moments=carry",
        "meta.inner_lr=1e-3",
    ),
    "sft": (*FULL, "meta.algorithm=sft", "optim.optimizer_type=adamw", "optim.lr=1e-3"),
    "maml-learned-rates": (
        *FULL,
        "meta.algorithm=maml",
        "meta.hvp=central",
        "meta.learn_inner_lr=true",
        "optim.lr=1e-2",
    ),
    "implicit": (*FULL, "meta.algorithm=implicit_maml", "meta.hvp=central", "meta.implicit.cg_steps=2"),
    "lora-fomaml": ("meta.learner=in_place", "meta.learn_inner_lr=true", "optim.optimizer_type=adam"),
    "lora-fomaml-in-pieces": (
        "meta.learner=in_place",
        "data.use_dynamic_bsz=true",
        "data.micro_batch_tokens=40",
    ),
    "lora-maml": ("meta.learner=in_place", "meta.algorithm=maml", "meta.hvp=central"),
    "lora-implicit": ("meta.learner=in_place", "meta.algorithm=implicit_maml", "meta.hvp=central"),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_sharded_model_trains_as_the_whole_one(
    bench: Workbench, two_processes: Processes, name: str
) -> None:
    words = COMBINATIONS[name]
    alone(run, settings(bench, f"{name}-whole", *words))
    two_processes.run(run, settings(bench, f"{name}-sharded", *words, FSDP))
    central = "meta.hvp=central" in words
    assert_same_run(bench.root / f"{name}-whole", bench.root / f"{name}-sharded", 2e-2 if central else 1e-4)


# Central differences and the exact derivative


def test_sharded_maml_by_central_differences_is_exact_maml_within_a_hundredth(
    bench: Workbench, two_processes: Processes
) -> None:
    maml = (
        "meta.algorithm=maml",
        "meta.outer_lr=1.0",
        "trainer.total_steps=1",
        "meta.inner_max_grad_norm=null",
    )
    steps = {}
    for kind in (
        ("model.lora_rank=0", "model.lora_layers=null", "meta.inner_lr=0.1"),
        ("meta.inner_lr=0.3",),
    ):
        exact = settings(bench, f"exact-{len(kind)}", *kind, *maml, "meta.hvp=reverse")
        sharded = settings(bench, f"central-{len(kind)}", *kind, *maml, FSDP)
        first_order = settings(bench, f"first-{len(kind)}", *kind, *maml, "meta.algorithm=fomaml")
        alone(run, exact)
        alone(run, first_order)
        two_processes.run(run, sharded)
        for words in (exact, sharded, first_order):
            folder = Path(next(w for w in words if w.startswith("trainer.default_local_dir=")).split("=")[1])
            steps[folder.name] = dict(RunState.read(folder / "latest").section("theta"))
        truth = steps[f"exact-{len(kind)}"]
        second_order = norm(subtract(truth, steps[f"first-{len(kind)}"]))
        error = norm(subtract(truth, steps[f"central-{len(kind)}"]))
        # The error as a share of what the second derivatives bring, not of the whole step.
        assert error < 1e-2 * second_order, f"{float(error)} of {float(second_order)}"


# Saving, and going on elsewhere


def test_a_sharded_run_goes_on_on_another_number_of_processes(
    bench: Workbench, two_processes: Processes
) -> None:
    words = ("optim.optimizer_type=adam", "optim.lr=1e-3", "meta.inner_rule=adam", "meta.inner_moments=carry")
    words = (*FULL, *words, "meta.inner_lr=1e-3", "trainer.total_steps=4")
    alone(run, settings(bench, "straight", *words))

    def until(step: int, *more: str) -> list[str]:
        """The same run, broken off: its schedule is constant, so a shorter one takes the same steps."""
        return settings(bench, "moved", *words, *more, f"trainer.total_steps={step}", "trainer.test_freq=-1")

    two_processes.run(run, until(1, FSDP))
    alone(run, until(2, FSDP))
    two_processes.run(run, until(3, FSDP))
    alone(run, until(4))  # and whole
    (tensors, values), (others, other_values) = state(bench.root / "straight"), state(bench.root / "moved")
    assert values == other_values
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_sharded_checkpoints_are_plain_hugging_face_and_peft_folders(
    bench: Workbench, two_processes: Processes
) -> None:
    for name, kind, load in (
        ("plain", FULL, AutoModelForCausalLM.from_pretrained),
        ("adapter", (), AutoPeftModelForCausalLM.from_pretrained),
    ):
        two_processes.run(run, settings(bench, name, *kind, FSDP))
        model = load(bench.root / name / "latest")
        assert type(model).__name__ in ("LlamaForCausalLM", "PeftModelForCausalLM")
        parameters = dict(model.named_parameters())
        saved = RunState.read(bench.root / name / "latest").section("theta")
        assert len(saved) > 0
        for key in saved:
            assert torch.equal(parameters[key], saved[key]), key
        assert not any("FSDP" in file.read_text() for file in (bench.root / name / "latest").glob("*.json"))


# How it ends


def run_disturbed(world: World, words: Sequence[str], disturb: str, tasks_before: int) -> None:
    """Trains; after so many tasks the second process, and no other, meets a bad loss or a signal."""
    original, seen = trainer.losses_of, 0

    def disturbed(tasks: Any, result: Any) -> list[TaskLosses]:
        nonlocal seen
        seen += 1
        losses = original(tasks, result)
        if seen <= tasks_before or world.rank != 1:
            return losses
        if disturb == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            return losses
        return [replace(losses[0], query_loss=float("nan"))]

    trainer.losses_of = disturbed
    try:
        run(world, words)
    finally:
        trainer.losses_of = original


@pytest.mark.parametrize("disturb", ["loss", "signal"])
@pytest.mark.parametrize("kind", [FULL, ()], ids=["full", "lora"])
def test_what_befalls_one_process_ends_all_with_the_last_whole_step_saved(
    bench: Workbench, two_processes: Processes, kind: Sequence[str], disturb: str
) -> None:
    name = f"{disturb}-{len(kind)}"
    words = settings(bench, name, *kind, FSDP, "meta.meta_batch_size=4", "trainer.test_freq=-1")
    a_step = 4 if kind else 2  # of full parameters every process walks through every task
    for outcome in two_processes.outcomes(run_disturbed, words, disturb, a_step):
        if disturb == "loss":
            assert isinstance(outcome.error, NonFiniteError), outcome.trace
            assert "is not finite at step 2; " in str(outcome.error)
        else:
            assert isinstance(outcome.error, Interrupted), outcome.trace
            assert "SIGTERM received; step 1 is saved in " in str(outcome.error)
    assert RunState.read_values(bench.root / name / "latest")["step"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("meta.learner=vmap",), "meta.learner vmap cannot run a sharded model"),
        (("meta.tasks_per_chunk=2",), "meta.tasks_per_chunk runs tasks side by side, which a sharded model"),
        (("meta.algorithm=maml", "meta.hvp=reverse"), "meta.hvp reverse cannot run on a sharded model"),
        (
            ("meta.algorithm=maml", "meta.differentiation=unroll"),
            "meta.differentiation unroll cannot run on a sharded model",
        ),
        (("model.fsdp_config.fsdp_size=3",), "fsdp_size=3 does not divide the 1 processes"),
        (
            ("model.fsdp_config.wrap_policy.transformer_layer_cls_to_wrap=GPT2Block",),
            "no layer of class GPT2Block",
        ),
    ],
)
def test_what_a_sharded_model_cannot_do_is_refused_in_a_line(
    bench: Workbench, words: Sequence[str], said: str
) -> None:
    with pytest.raises(InputError) as refusal:
        alone(run, settings(bench, "refused", FSDP, *words))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (bench.root / "refused").exists()


# Rows

ROWS = [
    TokenizedRow(tuple(range(3, 3 + length)), tuple(i >= length - targets for i in range(length)))
    for length, targets in ((9, 3), (4, 1), (6, 2), (12, 5), (5, 1))
]


@pytest.mark.parametrize("layout", ["padded", "packed", "sharing"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_losses_of_the_parts_of_a_batch_add_up_to_its_own(layout: str, count: int) -> None:
    model = tiny_llama(dtype=torch.float64)
    assert keep_rows_apart(model)
    (batch,) = collate(ROWS, pad_id=0, packed=layout != "padded", sharing=layout == "sharing")
    assert int(batch.shared) == (2 if layout == "sharing" else 0)
    parts = [part_of(batch, place, count) for place in range(count)]
    with torch.no_grad():
        total = sum(float(response_loss(model, part)) for part in parts)
        assert total == pytest.approx(float(response_loss(model, batch)), rel=1e-6)
    filled = [part for part in parts if part.target_weights.sum() > 0]
    again = int(batch.shared) * (len(filled) - 1)  # every part has the beginning of its own
    tokens = sum(int((part.segment_ids > 0).sum()) for part in filled)
    assert tokens == int((batch.segment_ids > 0).sum()) + again
    assert sum(int(part.target_weights.sum()) for part in parts) == 12
