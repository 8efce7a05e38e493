"""``innerloop sweep``."""

import argparse
from pathlib import Path

from innerloop.cli.train import add_settings


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "sweep",
        help="hyperparameter search",
        description="Trains once for every combination of the values given with commas "
        "(meta.inner_lr=1e-5,1e-4) and keeps a study that can be resumed.",
    )
    add_settings(parser)
    parser.add_argument("--metric", default="eval/loss", help="what to minimise (default: eval/loss)")
    parser.add_argument("--trials", type=int, metavar="N", help="combinations at most (default: all)")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("outputs/sweep"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Searches and prints the best combination."""
    from innerloop.llm.sweep import Sweep, run_sweep, split_space

    fixed, space = split_space(options.overrides)
    result = run_sweep(
        Sweep(
            options.config_name,
            options.config_path,
            fixed,
            space,
            options.metric,
            options.trials,
            options.output_dir,
            options.seed,
        )
    )
    print(f"best of {result.finished}: " + " ".join(f"{key}={value}" for key, value in result.best.items()))
    print(f"{options.metric}: {result.value:.6g}")
