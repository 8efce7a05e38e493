"""``innerloop rl``: trains, transfers, meta-trains, adapts and compares scaling policies for Kubernetes."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.cli.train import add_settings

if TYPE_CHECKING:
    from innerloop.rl.ppo_run import TrainingResult

SPLITS = ("train", "validation", "test")


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the group's parser."""
    parser = groups.add_parser("rl", help="scaling policies for Kubernetes that adapt to a new cluster")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary, run in (
        ("train", "train a policy by PPO", run_train),
        ("transfer", "train a source policy on another task family", run_transfer),
        ("meta-train", "meta-train a policy over many clusters", run_meta_train),
    ):
        train = verbs.add_parser(
            verb,
            help=summary,
            description=f"{summary.capitalize()}. Run it again to go on from the last checkpoint.",
        )
        if verb != "train":
            train.add_argument(
                "--source",
                required=verb == "transfer",
                type=Path,
                metavar="P",
                help="run or checkpoint of the policy to begin with",
            )
        add_settings(train)
        train.set_defaults(run=run)
    adapt = verbs.add_parser(
        "adapt",
        help="adapt a policy to one cluster of its family",
        description="Adapts a policy to a held-out cluster, shows its return before and after, saves it.",
    )
    adapt.add_argument("--model-path", required=True, type=Path, metavar="P", help="run or checkpoint")
    adapt.add_argument("--output-dir", required=True, type=Path, metavar="O", help="for the adapted policy")
    adapt.add_argument("--cluster", type=int, default=0, metavar="N", help="of the split (default: 0)")
    adapt.add_argument("--split", choices=SPLITS, default="test")
    adapt.add_argument("--episodes", type=int, default=10, metavar="E", help="to adapt on (default: 10)")
    adapt.add_argument("--seed", type=int, default=0, help="of the episodes")
    adapt.set_defaults(run=run_adapt)
    evaluate = verbs.add_parser(
        "evaluate",
        help="compare policies with each other and with the baselines",
        description="Adapts every policy to held-out clusters and measures it on the way, beside training "
        "from scratch, Kubernetes' own autoscaler and others. Writes evaluation.json and report.html.",
    )
    evaluate.add_argument(
        "--model", nargs="+", required=True, metavar="NAME=PATH", help="policies and their names"
    )
    evaluate.add_argument("--output-dir", required=True, type=Path, metavar="O")
    evaluate.add_argument("--split", choices=SPLITS, default="test")
    evaluate.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", dest="overrides", help="test.* settings"
    )
    evaluate.set_defaults(run=run_evaluate)
    report = verbs.add_parser(
        "report",
        help="the table and the page of an evaluation",
        description="Prints and draws a record again.",
    )
    report.add_argument("folder", type=Path, metavar="FOLDER", help="that holds evaluation.json")
    report.set_defaults(run=run_report)


def run_train(options: argparse.Namespace) -> None:
    """Trains by PPO."""
    from innerloop.rl.config import load_config
    from innerloop.rl.ppo_run import train

    _told(train(load_config(options.config_name, options.config_path, options.overrides)))


def run_transfer(options: argparse.Namespace) -> None:
    """Trains a source policy further."""
    from innerloop.rl.config import load_config
    from innerloop.rl.ppo_run import transfer

    config = load_config(options.config_name, options.config_path, options.overrides)
    _told(transfer(config, options.source))


def run_meta_train(options: argparse.Namespace) -> None:
    """Meta-trains."""
    from innerloop.rl.config import load_config
    from innerloop.rl.meta import meta_train

    config = load_config(options.config_name, options.config_path, options.overrides)
    _told(meta_train(config, options.source))


def run_adapt(options: argparse.Namespace) -> None:
    """Adapts to one cluster, and saves the adapted policy."""
    from innerloop.rl.adapted import adapt_to_one

    result = adapt_to_one(
        options.model_path, options.output_dir, options.split, options.cluster, options.episodes, options.seed
    )
    print(
        f"cluster:    {result.cluster}\n"
        f"return:     {result.before:.2f} before, {result.after:.2f} after {options.episodes} episodes\n"
        f"violations: {100 * result.violations_before:.1f} % before, "
        f"{100 * result.violations_after:.1f} % after\n"
        f"policy:     {result.folder}"
    )


def run_evaluate(options: argparse.Namespace) -> None:
    """Measures, and writes the record and its page."""
    from innerloop.cli.progress import cell_progress
    from innerloop.rl.evaluate import evaluate
    from innerloop.rl.models import named_models, test_settings
    from innerloop.rl.records import write_evaluation

    models = named_models(options.model)
    command = shlex.join(["innerloop", *sys.argv[1:]])
    with cell_progress("adaptations") as progress:
        evaluation = evaluate(
            models,
            test_settings(models, options.overrides),
            options.split,
            command,
            lambda name, done, total: progress(done, total, name),
        )
    write_evaluation(options.output_dir, evaluation)
    _show(options.output_dir)


def run_report(options: argparse.Namespace) -> None:
    """Prints and draws a record."""
    _show(options.folder)


def _show(folder: Path) -> None:
    from innerloop.core.files import write_whole
    from innerloop.rl.page import html_text
    from innerloop.rl.records import RECORD_FILE, read_evaluation
    from innerloop.rl.table import markdown

    evaluation = read_evaluation(folder)
    page = folder / "report.html"
    write_whole(page, html_text(evaluation))
    print(f"{markdown(evaluation)}\nrecord: {folder / RECORD_FILE}\nreport: {page}")


def _told(result: "TrainingResult") -> None:
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.metrics}")
