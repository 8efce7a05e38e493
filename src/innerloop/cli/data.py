"""``innerloop data``: prepares task folders from raw data, and checks them."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.llm.data.catalogue import PRESETS, PrepareOptions, Preset, Setting, settings

if TYPE_CHECKING:
    from innerloop.llm.data.prepare import Preparation
    from innerloop.llm.data.validate import Validation

PROBLEMS_SHOWN = 20
TASKS_SHOWN = 30


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the group's parser."""
    parser = groups.add_parser("data", help="prepare task folders from raw data, and check them")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    prepare = verbs.add_parser("prepare", help="turn a source into a folder of tasks")
    presets = prepare.add_subparsers(dest="preset", metavar="PRESET", required=True)
    for preset in PRESETS:
        _register_preset(presets, preset)
    validate = verbs.add_parser(
        "validate",
        help="check a prepared folder",
        description="Check a prepared folder, also one made by hand: counts, token lengths, duplicates, "
        "damage and leaks. Exits with 2 if anything is damaged or leaks.",
    )
    validate.add_argument("directory", type=Path, metavar="DIR", help="the prepared folder")
    validate.add_argument("--tokenizer", help="a model whose tokenizer measures token lengths")
    validate.add_argument("--prompt-key", default="prompt", help="column of the prompt (%(default)s)")
    validate.add_argument("--response-key", default="response", help="column of the response (%(default)s)")
    validate.add_argument("--messages-key", default="messages", help="column of the chat (%(default)s)")
    validate.set_defaults(run=run_validate)


def run_prepare(options: argparse.Namespace) -> None:
    """Prepares a folder and prints what is in it."""
    from rich.console import Console

    from innerloop.llm.data.prepare import prepare

    given = {name: value for name, value in vars(options).items() if name in options.names}
    with Console(stderr=True).status(f"Preparing {options.preset}"):
        done = prepare(options.preset, given)
    _print_preparation(done)


def run_validate(options: argparse.Namespace) -> None:
    """Checks a folder, prints each task and each finding, and fails if there are findings."""
    from rich.console import Console

    from innerloop.llm.data.rows import RowKeys
    from innerloop.llm.data.validate import load_tokenizer, validate

    keys = RowKeys(options.prompt_key, options.response_key, options.messages_key)
    with Console(stderr=True).status(f"Checking {options.directory}"):
        tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
        validation = validate(options.directory, tokenizer, keys)
    _print_validation(validation)
    validation.require_sound()
    print(f"{options.directory}: sound")


def _register_preset(presets: "argparse._SubParsersAction[argparse.ArgumentParser]", preset: Preset) -> None:
    parser = presets.add_parser(preset.name, help=preset.summary, description=f"Prepare {preset.summary}.")
    own, common = settings(preset.options), settings(PrepareOptions)
    for title, group in ((f"of {preset.name}", own), ("of every preset", common)):
        arguments = parser.add_argument_group(f"settings {title}")
        for setting in group:
            _add_argument(arguments, setting)
    parser.set_defaults(run=run_prepare, names=[setting.name for setting in (*own, *common)])


def _add_argument(arguments: argparse._ArgumentGroup, setting: Setting) -> None:
    text = setting.help
    if setting.kind is bool:
        arguments.add_argument(setting.flag, action="store_true", help=text)
        return
    if setting.default not in (None, (), -1):
        text = f"{text} (default: {setting.default})"
    metavar = {int: "N", float: "X", Path: "PATH"}.get(setting.kind, "TEXT")
    arguments.add_argument(
        setting.flag,
        type=setting.kind,
        nargs="+" if setting.many else None,
        metavar="NAME" if setting.many else metavar,
        default=setting.default,
        help=text,
    )


def _print_preparation(done: "Preparation") -> None:
    from innerloop.llm.data.rows import summary

    for problem in done.problems[:PROBLEMS_SHOWN]:
        print(f"skipped: {problem}", file=sys.stderr)
    if done.problems:
        print(summary(done.problems), file=sys.stderr)
    entries = done.manifest.tasks
    rows = [
        (
            task.name,
            task.role,
            task.grader,
            task.support.rows,
            task.query.rows,
            task.test.rows,
            _dropped(task.dropped),
        )
        for task in entries[:TASKS_SHOWN]
    ]
    _print_table(("task", "role", "grader", "support", "query", "test", "dropped"), rows)
    if len(entries) > TASKS_SHOWN:
        print(f"... and {len(entries) - TASKS_SHOWN} more tasks")
    roles = ", ".join(
        f"{len(done.manifest.names(role))} {role}" for role in ("train", "validation", "held_out")
    )
    checked = "; checked, sound" if done.validation is not None else ""
    print(f"{len(entries)} tasks ({roles}) in {done.directory}{checked}")


def _dropped(dropped: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in dropped.items())


def _print_validation(validation: "Validation") -> None:
    rows = []
    for task in validation.tasks:
        lengths = task.lengths
        tokens = f"{lengths.shortest} / {lengths.median} / {lengths.longest}" if lengths else ""
        rows.append((task.name, task.role or "", *task.rows.values(), task.duplicates, tokens))
    _print_table(
        ("task", "role", "support", "query", "test", "duplicates", "tokens (min / median / max)"), rows
    )
    for finding in validation.findings:
        print(finding, file=sys.stderr)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A drawn table on a terminal, aligned columns in a log; columns without content are left out."""
    from rich.console import Console
    from rich.table import Table

    kept = [index for index in range(len(header)) if any(str(row[index]) for row in rows)]
    texts = [[str(row[index]) for index in kept] for row in (header, *rows)]
    console = Console()
    if console.is_terminal:
        table = Table(*texts[0])
        for line in texts[1:]:
            table.add_row(*line)
        console.print(table)
        return
    widths = [max(len(line[index]) for line in texts) for index in range(len(kept))]
    for line in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
