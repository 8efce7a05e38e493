"""``innerloop fewshot``: trains, tests and compares few-shot classifiers, and classifies with them."""

import argparse
import shlex
import sys
from pathlib import Path

from innerloop.cli.train import add_settings
from innerloop.core.allocator import keep_freed_memory
from innerloop.core.files import write_whole

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
    train.set_defaults(run=run_train, on_several_processes=True)
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
    evaluate.add_argument(
        "--within-alphabet",
        action="store_true",
        help="Lake's trials: characters of one alphabet, support and queries by two hands",
    )
    evaluate.set_defaults(run=run_evaluate)
    bench = verbs.add_parser(
        "bench",
        help="train, test and compare methods",
        description="Trains and tests packaged settings one after another, prints the table of all records "
        "in the output folder and draws them in report.html there. Run it again to go on where it stopped.",
    )
    bench.add_argument("names", nargs="*", metavar="NAME", help="packaged settings; none: the table alone")
    bench.add_argument("--output-dir", required=True, type=Path, metavar="O")
    bench.add_argument("--document", type=Path, metavar="MD", help="put the table between this page's marks")
    bench.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", dest="overrides", help="over all of them"
    )
    bench.set_defaults(run=run_bench)
    predict = verbs.add_parser(
        "predict",
        help="classify your own images",
        description="Learns the classes of a support folder (a folder of images for each class) and gives "
        "the class probabilities of every image of a query folder.",
    )
    predict.add_argument("--model-path", required=True, type=Path, metavar="P", help="run or checkpoint")
    predict.add_argument("--support", required=True, type=Path, metavar="DIR", help="a folder for each class")
    predict.add_argument("--query", required=True, type=Path, metavar="DIR", help="images to classify")
    predict.add_argument("--output", type=Path, metavar="CSV", help="also write the probabilities here")
    predict.set_defaults(run=run_predict)


def run_train(options: argparse.Namespace) -> None:
    """Trains."""
    from innerloop.core.parallel import joined
    from innerloop.fewshot.config import load_config
    from innerloop.fewshot.train import train

    keep_freed_memory()
    with joined() as world:
        with world.together():
            config = load_config(options.config_name, options.config_path, options.overrides)
        result = train(config, world)
    if world.is_main:
        print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.metrics}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Tests, with a progress bar, and prints the accuracies."""
    from innerloop.cli.progress import cell_progress
    from innerloop.fewshot.evaluate import EvaluationSettings, evaluate

    keep_freed_memory()
    settings = EvaluationSettings(
        model_path=options.model_path,
        output_dir=options.output_dir,
        split=options.split,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        episodes=options.episodes,
        seed=options.seed,
        within_alphabet=options.within_alphabet,
        command=shlex.join(["innerloop", *sys.argv[1:]]),
    )
    with cell_progress("episodes") as progress:
        records = evaluate(settings, lambda done, total: progress(done, total, "tested"))
    for path, record in records.items():
        print(
            f"{record.method}, {record.cell}, {record.episodes} episodes\n"
            f"{record.data}\n"
            f"inductive:    {100 * record.inductive:.2f} % ± {100 * record.inductive_half:.2f}\n"
            f"transductive: {100 * record.transductive:.2f} % ± {100 * record.transductive_half:.2f}"
        )
        for instance, (mean, half) in enumerate(record.instances, start=1):
            print(f"image {instance} of a class: {100 * mean:.2f} % ± {100 * half:.2f}")
        print(f"record: {path}")


def run_bench(options: argparse.Namespace) -> None:
    """Trains and tests what is named, and prints the table."""
    from innerloop.fewshot.bench import run
    from innerloop.fewshot.curves import read_curves
    from innerloop.fewshot.page import html_text
    from innerloop.fewshot.records import read_records
    from innerloop.fewshot.table import markdown, put_into

    def progress(name: str, done: int, total: int) -> None:
        print(f"{name}: {done}/{total} test episodes", file=sys.stderr)

    keep_freed_memory()
    if options.names:
        run(options.names, options.output_dir, options.overrides, progress)
    records, page = read_records(options.output_dir), options.output_dir / "report.html"
    table = markdown(records)
    if options.document is not None:
        put_into(options.document, table)
    write_whole(page, html_text(records, read_curves(options.output_dir)))
    print(f"{table}\nreport: {page}")


def run_predict(options: argparse.Namespace) -> None:
    """Classifies, and prints the likeliest class of each image."""
    from rich.console import Console
    from rich.table import Table

    from innerloop.fewshot.predict import predict, write_predictions

    predictions = predict(options.model_path, options.support, options.query)
    if options.output is not None:
        write_predictions(options.output, predictions)
    table = Table("image", "class", "probability", box=None)
    for entry in predictions.images:
        name, share = predictions.best(entry)
        table.add_row(str(entry.image), name, f"{share:.3f}")
    Console().print(table)
    if options.output is not None:
        print(f"probabilities: {options.output}")
