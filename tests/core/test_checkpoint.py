"""Checkpoints: saving, pruning, finding, failing to write, damage, the state inside. Kills: test_kills.py."""

import ast
import errno
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import innerloop.core
from core.checkpoints import content_of, names, writer
from innerloop.core.checkpoint import CheckpointFolder, RunState, optimizer_tensors, restore_optimizer
from innerloop.core.errors import InputError
from innerloop.core.schedule import build_optimizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


# Saving, pruning, finding


def test_save_makes_a_whole_folder_and_points_latest_at_it(folder: Path) -> None:
    checkpoints = CheckpointFolder(folder)
    assert checkpoints.latest() is None
    assert checkpoints.steps() == []
    for step in (2, 10):
        assert checkpoints.save(step, writer(f"step {step}")) == folder / f"step_{step}"
        assert checkpoints.latest() == folder / f"step_{step}"
        assert content_of(folder / "latest") == f"step {step}"
    assert checkpoints.steps() == [2, 10]  # by number, not by name
    assert names(folder) == {"step_2", "step_10", "latest"}


def test_latest_survives_moving_the_run(folder: Path, tmp_path: Path) -> None:
    CheckpointFolder(folder).save(1, writer("one"))
    folder.rename(tmp_path / "moved")
    assert content_of(tmp_path / "moved" / "latest") == "one"


@pytest.mark.parametrize(("keep", "left"), [(-1, [1, 2, 3, 4]), (1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_keep_prunes_the_oldest(folder: Path, keep: int, left: list[int]) -> None:
    checkpoints = CheckpointFolder(folder, keep)
    for step in range(1, 5):
        checkpoints.save(step, writer(str(step)))
    assert checkpoints.steps() == left
    assert names(folder) == {*(f"step_{step}" for step in left), "latest"}
    assert content_of(folder / "latest") == "4"


@pytest.mark.parametrize(("keep", "left"), [(-1, [3, 4, 6, 9]), (1, [4]), (2, [3, 4]), (3, [3, 4, 9])])
def test_a_run_taken_back_to_an_earlier_step_keeps_what_it_saves(
    folder: Path, keep: int, left: list[int]
) -> None:
    for step in (3, 6, 9):
        CheckpointFolder(folder).save(step, writer("first run"))
    checkpoints = CheckpointFolder(folder, keep)
    checkpoints.save(4, writer("second run"))
    assert checkpoints.latest() == folder / "step_4"
    assert content_of(folder / "latest") == "second run"
    assert checkpoints.steps() == left


def test_saving_a_step_again_replaces_it(folder: Path) -> None:
    checkpoints = CheckpointFolder(folder)
    checkpoints.save(1, writer("old"))
    checkpoints.save(1, writer("new"))
    assert content_of(folder / "latest") == "new"
    assert names(folder) == {"step_1", "latest"}


def test_without_its_link_the_highest_step_is_the_latest(folder: Path) -> None:
    checkpoints = CheckpointFolder(folder)
    for step in (1, 2):
        checkpoints.save(step, writer(str(step)))
    (folder / "latest").unlink()
    assert checkpoints.latest() == folder / "step_2"
    (folder / "latest").symlink_to("step_7")  # a checkpoint that somebody deleted
    assert checkpoints.latest() == folder / "step_2"


def test_other_things_in_the_folder_are_left_alone(folder: Path) -> None:
    for name in ("step_x", "step_", "notes", ".cache"):
        (folder / name).mkdir(parents=True)
    (folder / "step_5").write_text("a file")
    checkpoints = CheckpointFolder(folder, keep=1)
    checkpoints.save(1, writer("one"))
    assert checkpoints.steps() == [1]
    assert names(folder) == {"step_x", "step_", "notes", ".cache", "step_5", "step_1", "latest"}


# Failures to write


class BoomError(Exception):
    """Anything a writer may raise."""


@pytest.mark.parametrize("error", [BoomError("tokenizer"), KeyboardInterrupt(), MemoryError()])
def test_a_writer_that_fails_leaves_nothing(folder: Path, error: BaseException) -> None:
    def write(target: Path) -> None:
        writer("half")(target)
        raise error

    checkpoints = CheckpointFolder(folder)
    checkpoints.save(1, writer("one"))
    with pytest.raises(type(error)):
        checkpoints.save(2, write)
    assert names(folder) == {"step_1", "latest"}
    assert content_of(folder / "latest") == "one"


def test_a_full_disk_is_one_line_and_spares_the_old_checkpoint(folder: Path) -> None:
    def write(target: Path) -> None:
        writer("half")(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = CheckpointFolder(folder, keep=1)
    checkpoints.save(1, writer("one"))
    with pytest.raises(InputError) as caught:
        checkpoints.save(2, write)
    message = str(caught.value)
    assert message.startswith(f"cannot write the checkpoint {folder / 'step_2'}: No space left on device; ")
    assert "\n" not in message
    assert names(folder) == {"step_1", "latest"}
    assert content_of(folder / "latest") == "one"
    checkpoints.save(2, writer("two"))
    assert names(folder) == {"step_2", "latest"}


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    """A file system of half a megabyte; needs the right to mount."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def short_files(_folder: Path) -> Iterator[None]:
    """No file may grow past 64 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [tiny_disk, short_files])
@pytest.mark.parametrize("where", ["tensors", "values"])
def test_a_disk_that_is_really_full(
    tmp_path: Path, limit: Callable[[Path], AbstractContextManager[None]], where: str
) -> None:
    small = RunState({"theta/w": torch.ones(8)}, {"step": 1})
    big = RunState(
        {"theta/w": torch.ones(300_000 if where == "tensors" else 8)},
        {"step": 2, "note": "x" * (600_000 if where == "values" else 1)},
    )
    disk = tmp_path / "disk"
    with limit(disk):
        checkpoints = CheckpointFolder(disk / "run")
        checkpoints.save(1, small.write)
        with pytest.raises(InputError, match=r"No space left on device|File too large") as caught:
            checkpoints.save(2, big.write)
        assert "\n" not in str(caught.value)
        assert names(disk / "run") == {"step_1", "latest"}
        assert torch.equal(RunState.read(disk / "run" / "latest").tensors["theta/w"], torch.ones(8))
        checkpoints.save(2, small.write)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")  # a read-only folder would not stop root
    with pytest.raises(InputError, match=r"cannot write the checkpoint .*: Not a directory") as caught:
        CheckpointFolder(tmp_path / "file" / "run").save(1, writer("one"))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == {"file"}


# The state inside

STATE = RunState(
    {
        "theta/half": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
        "theta/double": torch.tensor(1 / 3, dtype=torch.float64),
        "theta/turned": torch.arange(6.0).reshape(2, 3).T,
        "random/cpu": torch.get_rng_state(),
        "optimizer/0/empty": torch.zeros(0, 3),
    },
    {"step": 7, "sampler": {"tasks": 3}, "seconds": 0.1},
)


@pytest.fixture
def saved(folder: Path) -> Path:
    return CheckpointFolder(folder).save(7, STATE.write)


def test_state_comes_back_bit_for_bit(saved: Path) -> None:
    state = RunState.read(saved)
    assert state.values == STATE.values
    assert state.tensors.keys() == STATE.tensors.keys()
    for name, tensor in STATE.tensors.items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor)
    assert state.section("theta").keys() == {"half", "double", "turned"}
    assert state.section("the") == {}


def truncate(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no trainer_state": lambda state: shutil.rmtree(state),
    "no state.json": lambda state: (state / "state.json").unlink(),
    "empty state.json": lambda state: truncate(state / "state.json", 0),
    "half of state.json": lambda state: truncate(state / "state.json", 20),
    "a list in state.json": lambda state: (state / "state.json").write_text("[]"),
    "bytes that are no text": lambda state: (state / "state.json").write_bytes(b"\xff\xfe"),
    "no tensors": lambda state: (state / "tensors.safetensors").unlink(),
    "empty tensors": lambda state: truncate(state / "tensors.safetensors", 0),
    "half of the header": lambda state: truncate(state / "tensors.safetensors", 30),
    "a byte of the data missing": lambda state: truncate(
        state / "tensors.safetensors", (state / "tensors.safetensors").stat().st_size - 1
    ),
    "other bytes for tensors": lambda state: (state / "tensors.safetensors").write_bytes(b"\0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_half_a_checkpoint_is_refused(saved: Path, damage: str) -> None:
    DAMAGE[damage](saved / "trainer_state")
    with pytest.raises(InputError, match="trainer_state is missing or damaged") as caught:
        RunState.read(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_goes_on_as_if_never_stopped(name: str, tmp_path: Path) -> None:
    def steps(tensor: torch.Tensor, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            tensor.grad = tensor.detach().sin() + 0.1
            optimizer.step()

    straight = torch.linspace(-1, 1, 5)
    straight_optimizer = build_optimizer(name, [straight], [], 0.1, weight_decay=0.1)  # type: ignore[arg-type]
    steps(straight, straight_optimizer, 3)
    save_file(optimizer_tensors(straight_optimizer), tmp_path / "optimizer.safetensors")
    resumed = straight.clone()
    resumed_optimizer = build_optimizer(name, [resumed], [], 0.1, weight_decay=0.1)  # type: ignore[arg-type]
    restore_optimizer(resumed_optimizer, load_file(tmp_path / "optimizer.safetensors"))
    steps(straight, straight_optimizer, 3)
    steps(resumed, resumed_optimizer, 3)
    assert torch.equal(resumed, straight)


# No pickles

PICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load"}


def pickling(code: str) -> list[str]:
    """Whatever in the code could unpickle."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in PICKLING]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                name for name in imported if name.partition(".")[0] in PICKLING or name in PICKLING_CALLS
            ]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in PICKLING_CALLS:
            found.append(ast.unparse(node))
    return found


def test_core_never_unpickles() -> None:
    core = Path(innerloop.core.__file__).parent
    assert [found for path in core.rglob("*.py") for found in pickling(path.read_text())] == []


@pytest.mark.parametrize(
    "code", ["import pickle", "from pickle import loads", "from torch import load", "x = torch.load(path)"]
)
def test_unpickling_would_be_seen(code: str) -> None:
    assert pickling(code)


def test_a_checkpoint_holds_safetensors_and_json_only(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        json.loads(path.read_bytes() if path.suffix == ".json" else header(path))


def header(path: Path) -> bytes:
    """The JSON that a safetensors file begins with, after its length."""
    data = path.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]
