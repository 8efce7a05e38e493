"""``innerloop adapt``."""

import argparse
from pathlib import Path


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "adapt",
        help="adapt a meta-trained model to one new task",
        description="Adapts a model to one new task from a few examples; writes a PEFT adapter or a model.",
    )
    parser.add_argument("--model-path", required=True, metavar="P", help="run, checkpoint, model or adapter")
    parser.add_argument(
        "--examples", required=True, type=Path, metavar="FILE", help="jsonl, json, parquet or csv"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--steps", type=int, metavar="N", help="inner steps (default: as trained)")
    parser.add_argument("--lr", type=float, metavar="RATE", help="inner rate (default: as trained)")
    parser.add_argument(
        "--merge", action="store_true", help="write a whole model, the adapter merged into it"
    )
    parser.add_argument("--seed", type=int, default=0, help="order of the examples (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Adapts and saves."""
    from innerloop.llm.adapt import load

    adapted = load(options.model_path, device=options.device).adapt(
        options.examples,
        options.steps,
        options.lr,
        options.seed,
        watch=lambda step, loss: print(f"step {step}: loss {loss:.4f}"),
    )
    print(f"saved: {adapted.save(options.output, options.merge)}")
