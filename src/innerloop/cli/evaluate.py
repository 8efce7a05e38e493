"""``innerloop evaluate``."""

import argparse
from pathlib import Path
from typing import get_args


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "evaluate",
        help="few-shot adaptation curves on held-out tasks",
        description="Adapts a model to each task from N shots, several times, and scores the adapted model "
        "on the task's test rows. Run it again to go on where it stopped.",
    )
    parser.add_argument("--model-path", required=True, metavar="P", help="run, checkpoint, model or adapter")
    parser.add_argument(
        "--model-type", required=True, metavar="TYPE", help="what the model is; see the guide"
    )
    parser.add_argument("--data-dir", required=True, type=Path, metavar="D", help="prepared tasks")
    parser.add_argument("--output-dir", required=True, type=Path, metavar="O")
    parser.add_argument(
        "--eval-tasks", nargs="+", default=[], metavar="T", help="default: the held-out tasks"
    )
    parser.add_argument("--n-shots", nargs="+", type=int, default=[0, 5, 10, 25, 50], metavar="N")
    parser.add_argument("--n-runs", type=int, default=5, metavar="N", help="draws of the shots (default: 5)")
    parser.add_argument("--adaptation-lr", type=float, metavar="RATE", help="default: as trained")
    parser.add_argument("--adaptation-steps", type=int, metavar="N", help="default: as trained")
    parser.add_argument("--adaptation-batch-size", type=int, metavar="N", help="default: as trained")
    parser.add_argument(
        "--validation-tasks", nargs="+", default=[], metavar="T", help="choose rate and steps on these"
    )
    parser.add_argument("--grid-lrs", nargs="+", type=float, default=[], metavar="RATE")
    parser.add_argument("--grid-steps", nargs="+", type=int, default=[], metavar="N")
    parser.add_argument("--tokenizer-path", metavar="P")
    parser.add_argument("--max-test-samples", type=int, default=-1, metavar="N", help="-1 takes all")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="default: fits the reference answers")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the shots; the same for every method compared"
    )
    parser.add_argument("--name", default="", help="the method's name in the report (default: its type)")
    parser.add_argument("--config-name", metavar="NAME", help="how to adapt a model innerloop did not train")
    parser.add_argument("--config-path", type=Path, metavar="PATH")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", dest="overrides", help="settings for the same"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluates, with a progress bar."""
    from innerloop.cli.progress import cell_progress
    from innerloop.core.errors import InputError
    from innerloop.llm.config import load_config
    from innerloop.llm.evaluate.curves import evaluate
    from innerloop.llm.evaluate.settings import AdaptationGrid, EvaluationSettings, ModelType

    if options.model_type not in get_args(ModelType):
        known = ", ".join(get_args(ModelType))
        raise InputError(f"--model-type {options.model_type} is not known; there are: {known}")
    grid = None
    if options.validation_tasks:
        grid = AdaptationGrid(
            tuple(options.grid_lrs), tuple(options.grid_steps), tuple(options.validation_tasks)
        )
    elif options.grid_lrs or options.grid_steps:
        raise InputError("--grid-lrs and --grid-steps need --validation-tasks to choose on")
    settings = EvaluationSettings(
        model_path=options.model_path,
        model_type=options.model_type,
        data_dir=options.data_dir,
        output_dir=options.output_dir,
        tasks=tuple(options.eval_tasks),
        n_shots=tuple(options.n_shots),
        n_runs=options.n_runs,
        adaptation_lr=options.adaptation_lr,
        adaptation_steps=options.adaptation_steps,
        adaptation_batch_size=options.adaptation_batch_size,
        grid=grid,
        tokenizer_path=options.tokenizer_path,
        max_test_samples=options.max_test_samples,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        name=options.name,
    )
    config = load_config(options.config_name, options.config_path, options.overrides)
    with cell_progress(options.name or options.model_type) as progress:
        folder = evaluate(settings, config, progress)
    print(f"results: {folder}")
