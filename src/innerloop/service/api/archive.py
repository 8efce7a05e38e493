"""A folder as a zip file, made while it is sent, so that no size of model needs room."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

CHUNK = 2**20


def archive_of(folder: Path, name: str) -> StreamingResponse:
    """A folder's files, or those of its newest checkpoint, as a download.

    Args:
        folder: of a model, or of a run.
        name: of the zip file.

    Raises:
        HTTPException: 409 where the folder is gone.
    """
    found = folder / "latest" if (folder / "latest").exists() else folder
    if not found.is_dir():
        raise HTTPException(409, "the trained model's folder is not there any more")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_zipped(found.resolve()), media_type="application/zip", headers=headers)


class _Outlet(io.RawIOBase):
    """Takes what is written and gives it away."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since it was last asked for."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _zipped(folder: Path) -> Iterator[bytes]:
    outlet = _Outlet()
    # Weights do not compress; packing them would only cost time.
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            with path.open("rb") as source, archive.open(path.relative_to(folder).as_posix(), "w") as entry:
                while piece := source.read(CHUNK):
                    entry.write(piece)
                    yield outlet.take()
    yield outlet.take()
