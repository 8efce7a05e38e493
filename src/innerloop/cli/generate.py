"""``innerloop generate``: tries a model by hand, from an argument, from standard input, or in a dialogue."""

import argparse
import sys
from collections.abc import Iterator


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "generate",
        help="try a model by hand",
        description="Answers one prompt. Without --prompt it is read from standard input; on a terminal you "
        "are asked again and again, each time afresh, until end of file (Ctrl-D).",
    )
    parser.add_argument(
        "--model-path", required=True, help="a run, step_N, model or adapter folder, hub id or alias"
    )
    parser.add_argument("--prompt", help="what to ask")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="length of an answer (default: 256)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 is greedy (default), above 0 samples"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--dtype", default="auto", help="auto (as stored), float32, bfloat16, float16 or float64"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Loads the model and answers."""
    from innerloop.llm.artifacts import load_artifact
    from innerloop.llm.generate import generate

    loaded = load_artifact(
        options.model_path,
        trainable=False,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
    ).loaded
    for prompt in _prompts(options.prompt):
        answers = generate(
            loaded.model,
            loaded.tokenizer,
            [prompt],
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )
        print(answers[0], flush=True)


def _prompts(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
    elif not sys.stdin.isatty():
        yield sys.stdin.read()
    else:
        while True:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            if line.strip():
                yield line
