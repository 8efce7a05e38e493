"""``innerloop doctor``: what this machine offers and what is missing."""

import argparse


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "doctor", help="show versions, devices, back ends, free space and missing parts"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints the diagnosis."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from innerloop.llm.doctor import diagnose, render

    diagnosis = diagnose()
    if options.json:
        print(json.dumps(asdict(diagnosis), indent=2))
    else:
        Console().print(render(diagnosis))
