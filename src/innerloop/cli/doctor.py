"""``innerloop doctor``: what this machine offers and what is missing; what a run will need of memory."""

import argparse

from innerloop.cli.train import add_settings


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "doctor",
        help="show versions, devices, back ends, free space and missing parts; estimate a run's memory",
        description="Shows what this machine offers. With --estimate: the memory that a run of these "
        "settings will need on each device, and what for. The model's config is enough; no weights load.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--estimate", action="store_true", help="estimate the memory of 'innerloop train'")
    parser.add_argument(
        "--row-tokens", type=int, metavar="N", help="tokens of the longest row (default: data.max_length)"
    )
    parser.add_argument(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="tokens of its response (default: all but one, the upper bound)",
    )
    parser.add_argument(
        "--world-size", type=int, default=1, metavar="N", help="processes of torchrun (default: 1)"
    )
    add_settings(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints the diagnosis or the estimate."""
    from innerloop.core.errors import InputError

    if options.estimate:
        _estimate(options)
    elif options.config_name or options.config_path or options.overrides:
        raise InputError("doctor looks at settings with --estimate only; add it, or leave the settings out")
    else:
        _diagnose(options.json)


def _diagnose(as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from rich.console import Console

    from innerloop.llm.doctor import diagnose, render

    diagnosis = diagnose()
    if as_json:
        print(json.dumps(asdict(diagnosis), indent=2))
    else:
        Console().print(render(diagnosis))


def _estimate(options: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from rich.console import Console

    from innerloop.llm.config import load_config
    from innerloop.llm.estimate import RowShape, estimate
    from innerloop.llm.estimate_table import render

    config = load_config(options.config_name, options.config_path, options.overrides)
    tokens = config.data.max_length if options.row_tokens is None else options.row_tokens
    answer = tokens - 1 if options.answer_tokens is None else options.answer_tokens
    found = estimate(config, RowShape(tokens, answer), options.world_size)
    if options.json:
        print(json.dumps({**asdict(found), "peak": found.peak.size}, indent=2))
    else:
        Console().print(render(found))
