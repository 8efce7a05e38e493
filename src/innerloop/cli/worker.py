"""``innerloop worker``: runs jobs of a store, on this machine or any other."""

import argparse
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from innerloop.cli.serve import add_home, home_of

if TYPE_CHECKING:
    from innerloop.service.jobs.store import JobStore
    from innerloop.service.serving import Home
    from innerloop.service.work.settings import WorkerSettings


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
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run each job as a task of a Ray cluster; without an address, of the one that "
        "RAY_ADDRESS names or that runs on this machine, else of one started here",
    )
    parser.add_argument("--ray-tasks", type=int, default=16, metavar="N", help="at once (default: 16)")
    parser.add_argument("--ray-cpus", type=float, default=1, metavar="N", help="for each job (default: 1)")
    parser.add_argument("--ray-gpus", type=float, default=0, metavar="N", help="for each job (default: 0)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Works."""
    home = home_of(options)
    from innerloop.service.stores.opening import open_store
    from innerloop.service.work.running import run_worker

    settings = home.worker(options.name, options.lease)
    dispatch = None if options.ray is None else _dispatching(options, home, settings)
    store = open_store(home.address, home.database)
    try:
        if dispatch is None:
            run_worker(store, settings, options.while_input)
        else:
            dispatch(store)
    finally:
        store.close()


def _dispatching(
    options: argparse.Namespace, home: "Home", settings: "WorkerSettings"
) -> "Callable[[JobStore], None]":
    """What runs the jobs of a store on Ray.

    Raises:
        InputError: Ray is not installed, or a number is out of range.
    """
    from innerloop.service.work.ray_executor import Dispatcher, RayPlan, StoreAddress

    plan = RayPlan(options.ray or None, options.ray_tasks, options.ray_cpus, options.ray_gpus)
    address = StoreAddress(home.address, home.database)

    def dispatch(store: "JobStore") -> None:
        Dispatcher(store, address, settings, plan).run()

    return dispatch
