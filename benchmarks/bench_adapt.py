"""``innerloop adapt`` on one new task: the whole command against the bare gradient work in it.

Ten examples, ten inner steps, SmolLM2-135M with the adapter of META-LORA. The peer is the shortest loop with
PEFT and transformers on a model that is loaded already: ten gradients of the same padded rows, and nothing
read, checked or written. From the command's time, what Python takes to import is taken off. That its losses
are those of the loop is checked. Run on a quiet machine: ``python benchmarks/bench_adapt.py``.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from innerloop.llm.adaptable import Adaptable, load_adaptable
from innerloop.llm.artifact_info import ArtifactInfo
from innerloop.llm.artifacts import save_artifact
from innerloop.llm.config import load_config, to_dict
from innerloop.llm.data.rows import RowKeys, read_rows
from innerloop.llm.data.tokens import TokenizedRow
from innerloop.llm.tasks import RowsTask, shots_task
from innerloop.llm.train import inner_rule_info
from innerloop.llm.versions import library_versions
from measure import machine, seconds
from models import padded, with_pytorch_products

STEPS, EXAMPLES = 10, 10
QUESTIONS = (
    "How do I reset the password of my account when I no longer have the phone it is tied to?",
    "My parcel was marked as delivered yesterday but nothing has arrived. What should I do now?",
    "Please cancel the second of my two orders and refund it to the card that I paid with.",
    "Can I move my appointment on Tuesday morning to any time in the afternoon of the same day?",
    "The application stops with an error each time that I try to upload a picture of my passport.",
    "I was charged twice for the same subscription this month. Could you check that for me?",
    "Which of your plans includes support at weekends, and what does it cost for three people?",
    "The left speaker crackles at any volume since the last update. Is that a known fault?",
    "I would like to change the name on my ticket because it was misspelt when it was booked.",
    "Do you deliver to islands, and how many more days does it take than to the mainland?",
)
ANSWERS = (
    "account",
    "delivery",
    "billing",
    "booking",
    "technical",
    "billing",
    "sales",
    "technical",
    "booking",
    "delivery",
)


def artifact(folder: Path) -> Path:
    """A META-LORA artifact as training writes it, its adapter moved off its start."""
    model = load_adaptable("smollm2-135m", load_config("meta_lora"))
    move_adapter(model)
    folder.mkdir()
    info = ArtifactInfo(
        algorithm="fomaml",
        adapts="lora",
        base_model=model.loaded.base_model,
        base_path=model.loaded.base_path,
        inner=inner_rule_info(model.config.meta, model.inner_loop()),
        data_manifest_hash=None,
        seed=0,
        step=0,
        config=to_dict(model.config),
        versions=library_versions(),
    )
    save_artifact(folder, model.loaded.model, model.loaded.tokenizer, info)
    return folder


def move_adapter(model: Adaptable) -> None:
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.loaded.trainable_parameters().values():
            p.copy_(0.02 * torch.randn(p.shape, generator=made))


def plain_losses(model: Adaptable, batches: list[list[TokenizedRow]]) -> list[float]:
    """The loss before each step of the plain loop."""
    theta, meta = model.loaded.trainable_parameters(), model.config.meta
    start = [p.detach().clone() for p in theta.values()]
    losses = []
    for rows in batches:
        ids, seen, learned = padded(rows)
        logits = model.loaded.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
        each = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        chosen = learned[:, 1:].flatten()
        loss = (each * chosen).sum() / chosen.sum()
        model.loaded.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theta.values(), float(meta.inner_max_grad_norm or "inf"))
        with torch.no_grad():
            for p in theta.values():
                p -= meta.inner_lr * (torch.zeros_like(p) if p.grad is None else p.grad)
        losses.append(loss.item())
    with torch.no_grad():
        for p, old in zip(theta.values(), start, strict=True):
            p.copy_(old)
    return losses


def main() -> None:
    """Prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        adapter, examples = artifact(place / "adapter"), place / "examples.jsonl"
        pairs = zip(QUESTIONS, ANSWERS, strict=True)
        examples.write_text("".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in pairs))
        config = load_config("meta_lora", overrides=["model.attn_implementation=sdpa"])
        model = load_adaptable("smollm2-135m", config)
        with_pytorch_products(model.loaded.model)
        move_adapter(model)
        tokens = model.batcher.tokenize(read_rows(examples, RowKeys(), strict=True), "examples")
        task = shots_task("examples", tokens, STEPS, config.meta.inner_batch_size, model.batcher, 0)
        assert isinstance(task, RowsTask)
        batches = [list(rows) for rows in task.support_rows]
        wanted = plain_losses(model, batches)
        printed: list[str] = []
        imports, whole, bare = [], [], []
        for number in range(options.rounds):
            words = ["-m", "innerloop", "adapt", "--model-path", str(adapter), "--examples", str(examples)]
            words += ["--steps", str(STEPS), "-o", str(place / f"adapted{number}")]
            imports.append(seconds(lambda: run("-c", "import innerloop.cli.main, innerloop.llm.adapt")))
            whole.append(seconds(lambda words=words: printed.append(run(*words))))
            bare.append(seconds(lambda: plain_losses(model, batches)))
        got = [float(value) for value in re.findall(r"loss ([\d.]+)", printed[-1])]
        apart = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
        if apart > 1e-3:
            raise SystemExit(f"the losses differ by up to {apart:.1e}")
    ratios = [(w - i) / b for w, i, b in zip(whole, imports, bare, strict=True)]
    size = sum(len(row.input_ids) for row in tokens)
    console.print(
        f"{machine()}. {EXAMPLES} examples of {size} tokens, {STEPS} steps; losses {apart:.0e} apart."
    )
    console.print(
        f"the command beyond imports / bare gradients: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def run(*words: str) -> str:
    """What a Python process prints; a failure ends the benchmark."""
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
