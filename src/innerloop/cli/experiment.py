"""``innerloop experiment`` and ``innerloop quickstart``."""

import argparse

from innerloop.cli.train import add_settings


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands."""
    parser = groups.add_parser(
        "experiment",
        help="the whole comparison in one go",
        description="Prepares data, trains every method, evaluates all on held-out tasks and writes the "
        "report. "
        "Run it again to go on where it stopped.",
    )
    add_settings(parser)
    parser.set_defaults(run=run, on_several_processes=True)
    quick = groups.add_parser(
        "quickstart",
        help="the main job on the embedded model, from nothing to a report",
        description="Meta-trains a LoRA adapter of SmolLM2-135M on offline tasks and compares it with its "
        "controls on tasks none of them saw. No network, no GPU, under ten minutes on two cores.",
    )
    quick.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the packaged ones"
    )
    quick.set_defaults(run=run, config_name="quickstart", config_path=None)


def run(options: argparse.Namespace) -> None:
    """Runs the experiment and prints its table."""
    from rich.console import Console

    from innerloop.cli.progress import cell_progress
    from innerloop.core.parallel import joined
    from innerloop.llm.config import load_config
    from innerloop.llm.experiment import Narrator, run_experiment
    from innerloop.report import print_table

    console = Console(stderr=True)
    with joined() as world:

        def stage(name: str) -> None:
            if world.is_main:
                console.rule(name, align="left")

        with world.together():
            config = load_config(options.config_name, options.config_path, options.overrides)
        result = run_experiment(config, Narrator(stage, cell_progress), world)
    if result is not None:
        print_table(result.study)
        print(f"report: {result.report.html}")
