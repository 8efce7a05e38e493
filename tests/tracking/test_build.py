"""Choosing sinks by name."""

import builtins
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.core.tracking import Fanout, Tracker
from innerloop.tracking import build


def built(names: Sequence[str], folder: Path) -> list[Tracker]:
    return build(names, folder, "project", "experiment", total_steps=2, start_step=0, config={"seed": 0})


def test_sinks_come_in_order_and_once_each(tmp_path: Path) -> None:
    trackers = built(["tensorboard", "console", "tensorboard"], tmp_path)
    assert [type(tracker).__name__ for tracker in trackers] == ["TensorBoardTracker", "ConsoleTracker"]
    fanout = Fanout(trackers)
    fanout.log(1, {"meta/loss": 1.0})
    fanout.close()


def test_no_names_mean_no_sinks(tmp_path: Path) -> None:
    assert built([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("tensorbord", "did you mean 'tensorboard'"), ("mlflow", "there are: console, tensorboard, wandb")],
)
def test_an_unknown_name_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(["console", name], tmp_path)


@pytest.mark.parametrize(("sink", "library"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_library_is_one_line_and_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str, library: str
) -> None:
    real_import = builtins.__import__

    def without_library(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if name.split(".")[0] == library or name == "torch.utils.tensorboard":
            raise ImportError(name)
        return real_import(name, globals_, locals_, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without_library)
    monkeypatch.delitem(sys.modules, f"innerloop.tracking.{sink}", raising=False)
    with pytest.raises(InputError, match=rf"'{library}' is not installed; .*innerloop\[{sink}\]"):
        built(["console", sink], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_imports_no_sink() -> None:
    program = (
        "import sys, innerloop.tracking\nprint(sorted({'wandb', 'tensorboard', 'rich'} & set(sys.modules)))\n"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"
