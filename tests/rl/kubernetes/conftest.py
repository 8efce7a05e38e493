"""A control plane for the tests: the one that KUBECONFIG names, else one of their own, else they are skipped.

``INNERLOOP_KUBERNETES`` names the folder with ``start-cluster``; unset, it is ``kubernetes`` beside the
folder that INNERLOOP_DATA names. On a given cluster the tests make namespaces and nodes named
``innerloop-...`` and take them away again; those nodes are tainted, so that little else is scheduled on them.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from innerloop.rl.simulator import Scenario
from rl.kubernetes.gateway import Gateway
from rl.kubernetes.world import World

GIVEN = os.environ.get("KUBECONFIG", "")


if GIVEN:

    @pytest.fixture(autouse=True)
    def no_network() -> None:
        """Lifts the ban of all tests: a given cluster may be elsewhere."""


def start_folder() -> Path | None:
    """The folder with ``start-cluster``, if there is one."""
    named, data = os.environ.get("INNERLOOP_KUBERNETES"), os.environ.get("INNERLOOP_DATA")
    if named:
        return Path(named)
    beside = Path(data).resolve().parent / "kubernetes" if data else None
    return beside if beside and (beside / "start-cluster").is_file() else None


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(26443, 32000, 10):
        taken = []
        try:
            for port in range(first, first + count):
                taken.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for listener in taken:
                listener.close()
        return first
    raise AssertionError("no free ports on loopback")


@pytest.fixture(scope="session")
def own_control_plane() -> bool:
    """Whether the control plane was started for the tests, so that nothing else happens on it."""
    return not GIVEN


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """How the control plane is reached."""
    if GIVEN:
        yield Path(GIVEN)
        return
    folder = start_folder()
    if folder is None:
        pytest.skip("neither KUBECONFIG nor INNERLOOP_KUBERNETES (a folder with start-cluster) is set")
    if not shutil.which("etcd"):
        pytest.skip("etcd, which start-cluster needs, is not installed (apt-get install etcd-server)")
    start = ["bash", str(folder / "start-cluster")]
    state = Path(tempfile.mkdtemp(prefix="k8s-"))  # a short path: the control plane makes sockets in it
    try:
        begun = subprocess.run(
            [*start, str(state), str(free_ports(5))], capture_output=True, text=True, timeout=180
        )
        assert begun.returncode == 0, begun.stderr
        yield Path(begun.stdout.split()[-1])
    finally:
        pids = [int(path.read_text()) for path in state.glob("*.pid")]
        subprocess.run([*start, "--stop", str(state)], capture_output=True, timeout=60)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def admin(kubeconfig: Path) -> client.ApiClient:
    """A connection that may do everything, beside the one under test."""
    return config.new_client_from_config(str(kubeconfig))


@pytest.fixture
def gateway(kubeconfig: Path, tmp_path: Path) -> Iterator[Gateway]:
    """A way to the control plane that can be shut."""
    with Gateway(kubeconfig, tmp_path / "through-gateway") as made:
        yield made


@pytest.fixture
def make_world(kubeconfig: Path, admin: client.ApiClient) -> Iterator[Callable[[Scenario], World]]:
    """Builds what a scenario describes on the control plane; everything is taken away after the test."""
    worlds: list[World] = []

    def build(scenario: Scenario) -> World:
        worlds.append(World(kubeconfig, admin, scenario))
        worlds[-1].build()
        return worlds[-1]

    yield build
    for world in worlds:
        world.remove()
