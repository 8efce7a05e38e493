"""The command ``innerloop``: finds the group, runs it, turns errors into one line and an exit code.

Every group is one module with ``register(groups)``; it imports what it runs only when it runs, so that
``--help`` answers at once.
"""

import argparse
import importlib
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from innerloop import __version__
from innerloop.core.errors import InnerloopError, InputError, Interrupted
from innerloop.core.launch import launched, rank_here

GROUPS = (
    "experiment",
    "models",
    "doctor",
    "data",
    "train",
    "evaluate",
    "report",
    "adapt",
    "generate",
    "sweep",
    "fewshot",
    "rl",
    "serve",
    "worker",
)

_ONE_PROCESS = (
    "this command runs in one process; start it without torchrun (train, experiment and fewshot train run "
    "on several)"
)
EXIT_INPUT_ERROR = 2
EXIT_INTERRUPTED = 130


class StderrHandler(logging.Handler):
    """Shows what the package logs as plain lines on standard error, whatever that is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(f"innerloop: {level}{record.getMessage()}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        self.exit(EXIT_INPUT_ERROR, f"{self.prog}: {message} (try '{self.prog} --help')\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, every group registered."""
    parser = Parser(
        prog="innerloop", description="Train models that adapt to a new task from a few examples."
    )
    parser.add_argument("--version", action="version", version=f"innerloop {__version__}")
    groups = parser.add_subparsers(dest="group", metavar="COMMAND", required=True, parser_class=Parser)
    for group in GROUPS:
        importlib.import_module(f"innerloop.cli.{group}").register(groups)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ``key=value`` settings may stand in several places.

    Raises:
        SystemExit: 2 for a usage error.
    """
    parser = build_parser()
    # argparse fills a list of words from one place alone, and leaves over what stands after other options.
    options, rest = parser.parse_known_args(words)
    if rest:
        if not (hasattr(options, "overrides") and all("=" in w and not w.startswith("-") for w in rest)):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.overrides = [*options.overrides, *rest]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (0, 2 for a usage or input error, 130 for an interrupt)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    options = parse(words)
    if launched() and not hasattr(options, "on_several_processes"):
        if rank_here() == 0:
            print("innerloop: error: " + _ONE_PROCESS, file=sys.stderr)
        return EXIT_INPUT_ERROR
    show_what_is_logged()
    warnings.formatwarning = warning_line
    # What libraries announce to their developers is nothing to a user.
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    if rank_here():
        warnings.simplefilter("ignore")
    try:
        options.run(options)
    except (Interrupted, KeyboardInterrupt) as stop:
        _tell(stop, f"interrupted{': ' + one_line(stop) if str(stop) else ''}")
        return EXIT_INTERRUPTED
    except (InnerloopError, OSError) as error:
        if debug:
            traceback.print_exc()
        _tell(error, f"error: {one_line(error)}")
        return EXIT_INPUT_ERROR if isinstance(error, InputError | OSError) else 1
    return 0


def _tell(ending: BaseException, line: str) -> None:
    """Shows how a command ended, once however many processes it ran on."""
    if not getattr(ending, "told_by_main", False):
        process = f"process {rank_here()}: " if rank_here() else ""
        print(f"innerloop: {process}{line}", file=sys.stderr)


def show_what_is_logged() -> None:
    """Sends the package's log to standard error, once however often a command is run in a process."""
    logger = logging.getLogger("innerloop")
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())
        logger.setLevel(logging.ERROR if rank_here() else logging.INFO)


def warning_line(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 - the signature is Python's
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> str:
    """A warning as one line, without the place in the code."""
    return f"innerloop: warning: {message}\n"


def one_line(error: BaseException) -> str:
    """The error's message folded to one line."""
    return " ".join(str(error).split())


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
