"""``innerloop worker``: runs jobs of a store, on this machine or any other."""

import argparse
import os
import socket

from innerloop.cli.serve import add_home, home_of


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser(
        "worker",
        help="run the jobs of a service",
        description="Takes one job after the other from the store and runs it. Several workers share a store "
        "and a home; a job whose worker is lost goes on with another.",
    )
    add_home(parser)
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="in leases and logs")
    parser.add_argument("--while-input", action="store_true", help="stop when standard input ends, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Works."""
    home = home_of(options)
    from innerloop.service.stores.opening import open_store
    from innerloop.service.work.running import run_worker

    store = open_store(home.address, home.database)
    try:
        run_worker(store, home.worker(options.name, options.lease), options.while_input)
    finally:
        store.close()
