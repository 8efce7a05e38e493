"""``innerloop serve``: the service with its dashboard and workers."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.core.errors import InputError, missing_extra

if TYPE_CHECKING:
    from innerloop.service.serving import Home


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "serve",
        help="jobs by HTTP, with a dashboard",
        description="Takes jobs by HTTP, runs them, shows them at http://HOST:PORT/. With INNERLOOP_TOKEN "
        "set, every request must carry it; without, only this machine can reach the service.",
    )
    add_home(parser)
    parser.add_argument(
        "--host", default=os.environ.get("INNERLOOP_HOST", "127.0.0.1"), help="default: loopback"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=_set("INNERLOOP_PORT", "8000"),
        help="0 takes any free one (default: 8000)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=_set("INNERLOOP_WORKERS", "1"),
        metavar="N",
        help="processes that run jobs, one at a time each; 0 leaves that to 'innerloop worker' (default: 1)",
    )
    parser.add_argument(
        "--allowed-hosts", nargs="+", default=[], metavar="NAME", help="that the service may be called by"
    )
    parser.set_defaults(run=run)


def add_home(parser: argparse.ArgumentParser) -> None:
    """Adds what the service and its workers have in common."""
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("INNERLOOP_HOME", "innerloop-home")),
        metavar="DIR",
        help="of jobs and their results, shared by all workers (default: INNERLOOP_HOME, or innerloop-home)",
    )
    parser.add_argument(
        "--store",
        default=os.environ.get("INNERLOOP_STORE") or os.environ.get("MONGODB_URL"),
        metavar="URL",
        help="sqlite:///FILE, postgresql://..., mongodb://... (default: INNERLOOP_STORE, MONGODB_URL, or a "
        "SQLite file in the home)",
    )
    library = os.environ.get("INNERLOOP_LIBRARY")
    parser.add_argument(
        "--library",
        type=Path,
        default=Path(library) if library else None,
        metavar="DIR",
        help="with models/ and data/ that requests may name (default: INNERLOOP_LIBRARY)",
    )
    parser.add_argument(
        "--lease",
        type=float,
        default=_set("INNERLOOP_LEASE", "30"),
        metavar="S",
        help="seconds after which the job of a worker that is lost goes to another (default: 30)",
    )


def home_of(options: argparse.Namespace) -> "Home":
    """The options' home.

    Raises:
        InputError: a lease too short or too long, or the service's libraries are missing.
    """
    try:
        from innerloop.service.serving import Home
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "fastapi", "service") from error
    if not SHORTEST_LEASE <= options.lease <= LONGEST_LEASE:
        raise InputError(
            f"--lease is {options.lease:g}; it must be between {SHORTEST_LEASE} and {LONGEST_LEASE} seconds"
        )
    return Home(options.home, options.store, os.environ.get("MONGODB_DATABASE"), options.library)


SHORTEST_LEASE, LONGEST_LEASE = 3, 86_400


def run(options: argparse.Namespace) -> None:
    """Serves."""
    home = home_of(options)
    from innerloop.service.api.settings import ServiceSettings
    from innerloop.service.serving import serve

    if options.workers < 0:
        raise InputError(f"--workers is {options.workers}; it must be 0 or more")
    token = os.environ.get("INNERLOOP_TOKEN") or None
    settings = ServiceSettings(options.host, options.port, token, allowed_hosts=tuple(options.allowed_hosts))
    serve(home, settings, options.workers, options.lease)


def _set(variable: str, default: str) -> str:
    """What a variable of the environment says, as it would stand in the command line: checked as that is."""
    return os.environ.get(variable) or default
