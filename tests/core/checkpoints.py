"""Checkpoints of a few words, in which a test can see at once whether they are whole."""

from collections.abc import Callable
from pathlib import Path

FILES = ("weights.bin", "trainer_state/state.json")


def writer(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in FILES:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    return write


def content_of(checkpoint: Path) -> str:
    """What a checkpoint was written with; every file must be there and say the same."""
    (content,) = {(checkpoint / name).read_text() for name in FILES}
    return content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
