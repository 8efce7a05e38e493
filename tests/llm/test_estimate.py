"""The memory model against what a real meta-step holds: parameters to the byte, passes within a tenth."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from innerloop.cli.main import main
from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.live_memory import LiveMemory
from innerloop.core.task import FixedTask, MicroBatches
from innerloop.llm.algorithms import build_inner_loop, build_learner, build_strategy, model_spec, set_modes
from innerloop.llm.config import Config, load_config
from innerloop.llm.data.tokens import TokenBatch
from innerloop.llm.estimate import Estimate, RowShape, estimate
from innerloop.llm.estimate_table import render
from innerloop.llm.model import load_model
from tiny_llama import save_tiny_llama, tiny_llama

STANDING = {
    "process",
    "frozen weights",
    "meta-parameters θ",
    "master copy of θ",
    "sum of meta-gradients",
    "optimizer state",
    "frozen layers' states",
}
SHAPE = RowShape(tokens=24, answer=8)
LORA = ("model.lora_rank=4", "meta.inner_max_grad_norm=null")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def settings(folder: Path, *overrides: str) -> Config:
    common = (
        f"model.partial_pretrain={folder}",
        "trainer.device=cpu",
        "meta.num_inner_steps=3",
        "meta.inner_batch_size=4",
        "meta.query_batch_size=4",
    )
    return load_config("fomaml_sft", None, [*common, *overrides])


def sizes(found: Estimate) -> dict[str, int]:
    return {part.name: part.size for part in found.phases[0].parts}


# What stands all the time


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_parameters_and_optimizer_are_exact(folder: Path, dtype: str, size: int) -> None:
    count = sum(p.numel() for p in tiny_llama().parameters())
    found = estimate(settings(folder, f"model.dtype={dtype}"), SHAPE)
    parts = sizes(found)
    assert (found.parameters, found.adapted) == (count, count)
    assert parts["meta-parameters θ"] == size * count
    assert parts.get("master copy of θ", 0) == (4 * count if size == 2 else 0)
    assert parts["sum of meta-gradients"] == 4 * count
    assert parts["optimizer state"] == 8 * count
    assert "frozen weights" not in parts


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_exact(folder: Path, dtype: str) -> None:
    config = settings(folder, f"model.dtype={dtype}", *LORA, "optim.optimizer_type=sgd")
    model = load_model(model_spec(config)).model
    frozen, adapted = (
        [p for p in model.parameters() if p.requires_grad is adapts] for adapts in (False, True)
    )
    parts = sizes(estimate(config, SHAPE))
    assert parts["frozen weights"] == sum(p.nbytes for p in frozen)
    assert parts["meta-parameters θ"] == sum(p.nbytes for p in adapted)
    assert parts["sum of meta-gradients"] == sum(4 * p.numel() for p in adapted)
    assert "optimizer state" not in parts


def test_sharded_processes_share_what_is_sharded(folder: Path) -> None:
    config = settings(folder, "model.use_fsdp=true")
    one, four = (sizes(estimate(config, SHAPE, world_size)) for world_size in (1, 4))
    for name in ("meta-parameters θ", "sum of meta-gradients", "optimizer state", "copy of θ"):
        assert four[name] == one[name] // 4
    assert "gathered layers" in four.keys() - one.keys()
    alone = sizes(estimate(settings(folder), SHAPE, 4))
    assert alone["optimizer state"] == one["optimizer state"], "data parallel processes share nothing"
    adapter = sizes(estimate(settings(folder, *LORA, "model.use_fsdp=true"), SHAPE, 4))
    whole = sizes(estimate(settings(folder, *LORA), SHAPE))
    assert adapter["frozen weights"] == whole["frozen weights"] // 4
    assert adapter["meta-parameters θ"] == whole["meta-parameters θ"]


# What comes and goes, against a real meta-gradient


def batch(rows: int, cut: int | None) -> MicroBatches:
    """Tokens of the shape the estimate is told."""
    ids = torch.ones(rows, SHAPE.tokens, dtype=torch.long)
    targets = torch.arange(SHAPE.tokens - SHAPE.answer, SHAPE.tokens).expand(rows, -1).contiguous()
    whole = (
        ids,
        torch.arange(SHAPE.tokens).expand(rows, -1).contiguous(),
        torch.ones_like(ids),
        targets,
        torch.ones(targets.shape),
    )
    parts = zip(*(tensor.split(cut or rows) for tensor in whole), strict=True)
    return MicroBatches(
        TokenBatch(*part, torch.tensor(float(targets.numel())), torch.tensor(0)) for part in parts
    )


def held(config: Config, cut: int | None = None) -> int:
    """The most bytes that a meta-gradient holds beside the model and the sum of the meta-batch."""
    model = load_model(model_spec(config)).model
    set_modes(config, model)
    learner = build_learner(config, model)
    strategy = build_strategy(config.meta, build_inner_loop(config.meta, list(learner.theta)))
    learner.masters = {
        name: p.detach().float() for name, p in learner.theta.items() if p.dtype == torch.bfloat16
    }
    total = {name: torch.zeros(p.shape) for name, p in learner.theta.items()}
    tasks = [
        FixedTask(
            f"{number}", [batch(config.meta.inner_batch_size, cut)], batch(config.meta.query_batch_size, cut)
        )
        for number in range(learner.tasks_at_once)
    ]
    with LiveMemory() as live:
        strategy(learner, learner.bundle(tasks), vector.detached(total))
    return live.peak


CASES: dict[str, Sequence[str]] = {
    "fomaml": ["meta.inner_max_grad_norm=null"],
    "fomaml, clipped": [],
    "fomaml, bfloat16": ["model.dtype=bfloat16"],
    "fomaml, checkpointed": ["model.enable_gradient_checkpointing=true"],
    "fomaml, inner adam": ["meta.inner_rule=adam", "meta.inner_max_grad_norm=null"],
    "maml": ["meta.algorithm=maml", "meta.inner_max_grad_norm=null"],
    "maml, clipped": ["meta.algorithm=maml"],
    "maml, central": ["meta.algorithm=maml", "meta.hvp=central"],
    "implicit maml": ["meta.algorithm=implicit_maml"],
    "reptile": ["meta.algorithm=reptile"],
    "sft": ["meta.algorithm=sft"],
    "lora, fomaml": LORA,
    "lora, maml": [*LORA, "meta.algorithm=maml"],
    "lora, fomaml, two at once": [*LORA, "meta.tasks_per_chunk=2"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_pass_is_predicted(folder: Path, case: str) -> None:
    config = settings(folder, *CASES[case])
    assert predicted(config) == pytest.approx(held(config), rel=0.1)


def test_micro_batches_are_predicted(folder: Path) -> None:
    config = settings(folder, "data.use_dynamic_bsz=true", "data.micro_batch_tokens=24")
    assert predicted(config) == pytest.approx(held(config, cut=1), rel=0.1)
    assert predicted(config) < predicted(settings(folder))


def predicted(config: Config) -> int:
    """What the estimate adds to what stands, in the phase that needs most, without slack."""
    heights = []
    for phase in estimate(config, SHAPE).phases:
        heights.append(sum(p.size for p in phase.parts if p.name not in STANDING and p.name != "slack"))
    return max(heights[:-1])  # the outer step is the trainer's


# The command


def test_the_command_needs_a_config_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_llama().config.save_pretrained(tmp_path)
    words = ["--config-name", "meta_lora", f"model.partial_pretrain={tmp_path}", "data.max_length=32"]
    assert main(["doctor", "--estimate", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["peak"] == max(sum(p["size"] for p in phase["parts"]) for phase in found["phases"])
    assert main(["doctor", "--estimate", *words, "--row-tokens", "16", "--answer-tokens", "4"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("frozen weights", "activations", "optimizer state", "peak", "query gradient", "free here"):
        assert word in text


def test_iterates_lie_in_host_memory_beside_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from innerloop.llm import estimate as module

    monkeypatch.setattr(module, "pick_device", lambda _name: torch.device("cuda"))
    found = estimate(settings(folder, *CASES["maml"]), SHAPE)
    assert [part.name for part in found.on_host] == ["iterates"]
    assert not any(part.name == "iterates" for phase in found.phases for part in phase.parts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 2000))
    console = Console(record=True, width=120)
    console.print(render(found))
    assert "It does not fit" in console.export_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--estimate", "model.partial_pretrain=no/such/model"], "config.json"),
        (["--estimate", "--row-tokens", "8", "--answer-tokens", "8"], "a row of 8 tokens"),
        (["--estimate", "--world-size", "0"], "at least one process"),
        (["meta.num_inner_steps=2"], "--estimate"),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str],
    says: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = any(word.startswith("model.") for word in words)
    extra = [] if named or "--estimate" not in words else [f"model.partial_pretrain={folder}"]
    assert main(["doctor", *words, *extra]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_a_response_as_long_as_its_row_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="a row of 4 tokens"):
        estimate(settings(folder), RowShape(4, 4))
