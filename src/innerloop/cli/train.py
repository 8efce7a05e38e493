"""``innerloop train``."""

import argparse
from pathlib import Path


def add_settings(parser: argparse.ArgumentParser, name_required: bool = False) -> None:
    """The options that name settings, shared by every command that takes them."""
    parser.add_argument(
        "--config-name",
        required=name_required,
        metavar="NAME",
        help="packaged settings, for example meta_lora",
    )
    parser.add_argument(
        "--config-path", type=Path, metavar="PATH", help="your YAML file, or the folder that holds NAME.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over every file")


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "train",
        help="meta-train a model, or train its matched-compute control",
        description="Meta-trains a causal language model (or trains its SFT control) as settings describe. "
        "Run it again to go on from the last checkpoint.",
    )
    add_settings(parser)
    parser.set_defaults(run=run, on_several_processes=True)


def run(options: argparse.Namespace) -> None:
    """Trains."""
    from innerloop.core.parallel import joined
    from innerloop.llm.config import load_config
    from innerloop.llm.train import train

    with joined() as world:
        with world.together():
            config = load_config(options.config_name, options.config_path, options.overrides)
        result = train(config, world)
    if world.is_main:
        print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.metrics}")
