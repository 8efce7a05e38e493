"""Meta-learning a 1.2 B model on one small machine: first-order MAML on all parameters, and META-LORA.

The model has the shape of Llama 3.2 1B and random weights, so that nothing has to be downloaded; memory does
not depend on what the weights say. Its estimate is printed first, and the run is refused if it does not fit
into what is free. The run is meta-steps of the trainer on random tokens, in a process of its own, whose
peak of resident memory is compared with the estimate.

Run: ``python benchmarks/full_parameters.py full|lora|predict [--steps 2] [--tasks 2] [--tokens 64] [k=v]``.
``predict`` estimates all parameters of 1.2 B and 4 B models and runs nothing.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.filesize import decimal
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config

from innerloop.llm.algorithms import model_spec
from innerloop.llm.config import Config, load_config
from innerloop.llm.devices import parse_dtype
from innerloop.llm.estimate import Estimate, RowShape, estimate
from innerloop.llm.estimate_table import render
from innerloop.llm.lora import attach_lora
from innerloop.llm.model import LoadedModel, recompute_activations
from measure import peak
from memory_run import meta_steps
from models import one_word_tokenizer

FULL = (
    "fomaml_sft",
    "meta.inner_max_grad_norm=null",
    "meta.num_inner_steps=1",
    "meta.inner_batch_size=2",
    "meta.query_batch_size=2",
    "model.dtype=bfloat16",
    # AdamW's two moments alone are 9.9 GB at this size; with them the step needs 23 GB.
    "optim.optimizer_type=sgd",
    "optim.lr=0.1",
)
LORA = ("meta_lora", "model.dtype=bfloat16")


def llama_1b() -> PreTrainedConfig:
    """Llama 3.2 1B."""
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )


def qwen_4b() -> PreTrainedConfig:
    """Qwen3 4B."""
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )


def run(config: Config, shape: RowShape, steps: int) -> None:
    """Meta-steps on random weights."""
    torch.manual_seed(0)
    spec = model_spec(config)
    attention = None if spec.attn_implementation == "auto" else spec.attn_implementation
    model = AutoModelForCausalLM.from_config(
        llama_1b(), dtype=parse_dtype(spec.dtype), attn_implementation=attention
    )
    if spec.gradient_checkpointing:
        recompute_activations(model)
    if spec.lora is not None:
        model = attach_lora(model, spec.lora, "random")
    loaded = LoadedModel(model.eval(), one_word_tokenizer(), "random", "random")
    began = time.perf_counter()
    norms = meta_steps(config, shape, steps, loaded)
    print(f"norms of the meta-gradients: {norms}; {time.perf_counter() - began:.0f} s", flush=True)


def settings(shape: PreTrainedConfig, folder: Path, *words: str) -> Config:
    """A named configuration on a model of this shape."""
    shape.save_pretrained(folder)
    name, *overrides = words
    return load_config(name, None, [f"model.partial_pretrain={folder}", "trainer.device=cpu", *overrides])


def in_parameters(found: Estimate) -> str:
    """The peak in copies of the float32 parameters, apart from graph and libraries."""
    passing = ("process", "activations", "logits and gradients", "slack")
    size = sum(part.size for part in found.peak.parts if part.name not in passing)
    return f"{size / (4 * found.parameters):.2f} x the float32 parameters, one graph apart"


def predict(console: Console) -> None:
    """All parameters with AdamW, in float32 and in bfloat16, for both sizes."""
    for name, shape in {"1.2 B": llama_1b(), "4 B": qwen_4b()}.items():
        for dtype in ("float32", "bfloat16"):
            with tempfile.TemporaryDirectory() as folder:
                words = ("fomaml_sft", "meta.inner_max_grad_norm=null", f"model.dtype={dtype}")
                found = estimate(settings(shape, Path(folder), *words), RowShape(256, 128))
            console.print(render(found))
            console.print(f"{name}, {dtype}: {in_parameters(found)}\n")


def main() -> None:
    """Estimates, and runs what fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("full", "lora", "predict"))
    parser.add_argument("--tasks", type=int, default=2, help="of a meta-step")
    parser.add_argument("--steps", type=int, default=2, help="meta-steps")
    parser.add_argument("--tokens", type=int, default=64, help="of a row, half of them its response")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    options = parser.parse_args()
    console = Console()
    if options.what == "predict":
        predict(console)
        return
    words = FULL if options.what == "full" else LORA
    shape = RowShape(options.tokens, options.tokens // 2)
    with tempfile.TemporaryDirectory() as folder:
        config = settings(
            llama_1b(), Path(folder), *words, f"meta.meta_batch_size={options.tasks}", *options.overrides
        )
        expected = estimate(config, shape)
        console.print(render(expected))
        console.print(in_parameters(expected))
        if expected.peak.size > psutil.virtual_memory().available:
            raise SystemExit("it does not fit into what is free now, so it is not run")
        measured = peak(partial(run, config, shape, options.steps))
    console.print(
        f"measured peak {decimal(int(measured))}, {measured / expected.peak.size:.2f} of the estimate"
    )


if __name__ == "__main__":
    main()
