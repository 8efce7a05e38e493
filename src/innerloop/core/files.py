"""Text files that are there whole or not at all."""

from pathlib import Path

from innerloop.core.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Writes a text as UTF-8 beside its place and moves it there; makes the folder when missing.

    Raises:
        InputError: it cannot be written; what was there before is left.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    except OSError as error:
        # Where a folder on the way is a file, not even a look at what is left of it is possible.
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
