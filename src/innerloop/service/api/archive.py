"""A folder as a zip file, made while it is sent, so that no size of model needs room."""

import io
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

logger = logging.getLogger(__name__)

CHUNK = 2**20


def archive_of(job: Path, model: str, name: str) -> StreamingResponse:
    """A model's files, or those of the newest checkpoint of a run, as a download.

    Args:
        job: the job's folder; nothing beyond it is sent.
        model: the folder of a model or of a run, as a path from the folder that the job's is in.
        name: of the zip file.

    Raises:
        HTTPException: 409 where there is no such folder in the job's.
    """
    folder = job.parent / model
    found = (folder / "latest" if (folder / "latest").exists() else folder).resolve()
    if not found.is_relative_to(job.resolve()) or not found.is_dir():
        logger.warning("the model of a job is to be sent, but %s is no folder in %s", folder, job)
        raise HTTPException(409, "the trained model's folder is not there any more")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_zipped(found), media_type="application/zip", headers=headers)


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
            entry_name = path.relative_to(folder).as_posix()
            # The size is not known before all is read, so an entry is given room for any.
            with path.open("rb") as source, archive.open(entry_name, "w", force_zip64=True) as entry:
                while piece := source.read(CHUNK):
                    entry.write(piece)
                    yield outlet.take()
    yield outlet.take()
