"""``innerloop fewshot``: trains, tests and compares few-shot classifiers, and classifies with them."""

import argparse
import shlex
import sys
from pathlib import Path

from innerloop.cli.train import add_settings

SPLITS = ("train", "validation", "test")


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the group's parser."""
    parser = groups.add_parser("fewshot", help="few-shot classification: ten methods under one roof")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    train = verbs.add_parser(
        "train",
        help="train a method",
        description="Trains a method on episodes of a data set. "
        "Run it again to go on from the last checkpoint.",
    )
    add_settings(train)
    train.set_defaults(run=run_train)
    evaluate = verbs.add_parser(
        "evaluate",
        help="accuracy on episodes of classes never trained on",
        description="Tests a trained method on episodes of held-out classes, inductive and transductive.",
    )
    evaluate.add_argument("--model-path", required=True, type=Path, metavar="P", help="run or checkpoint")
    evaluate.add_argument(
        "--output-dir", type=Path, metavar="O", help="default: 'test' in the model's folder"
    )
    evaluate.add_argument("--split", choices=SPLITS, default="test", help="of the data (default: test)")
    evaluate.add_argument("--ways", type=int, metavar="N", help="classes an episode; default: as configured")
    evaluate.add_argument("--shots", type=int, metavar="K", help="support images a class")
    evaluate.add_argument("--queries", type=int, metavar="Q", help="query images a class")
    evaluate.add_argument("--episodes", type=int, metavar="E", help="how many")
    evaluate.add_argument("--seed", type=int, help="of the episodes")
    evaluate.set_defaults(run=run_evaluate)


def run_train(options: argparse.Namespace) -> None:
    """Trains."""
    from innerloop.fewshot.config import load_config
    from innerloop.fewshot.train import train

    result = train(load_config(options.config_name, options.config_path, options.overrides))
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.metrics}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Tests, with a progress bar, and prints the accuracies."""
    from innerloop.cli.progress import cell_progress
    from innerloop.fewshot.testing import TestSettings, test

    settings = TestSettings(
        model_path=options.model_path,
        output_dir=options.output_dir,
        split=options.split,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        episodes=options.episodes,
        seed=options.seed,
        command=shlex.join(["innerloop", *sys.argv[1:]]),
    )
    with cell_progress("episodes") as progress:
        path, record = test(settings, lambda done, total: progress(done, total, "tested"))
    print(
        f"{record.method}, {record.ways}-way {record.shots}-shot, {record.episodes} episodes\n{record.data}\n"
        f"inductive:    {100 * record.inductive:.2f} % ± {100 * record.inductive_half:.2f}\n"
        f"transductive: {100 * record.transductive:.2f} % ± {100 * record.transductive_half:.2f}\n"
        f"record: {path}"
    )
