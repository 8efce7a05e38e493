"""Writing a folder of prepared tasks, whole or not at all, and byte for byte the same for the same rows.

The layout is ``prepared``'s; what goes into it is decided in ``prepare``.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from innerloop.core.errors import InputError
from innerloop.llm.data.prepared import MANIFEST, MIXED, MIXED_FILE, SPLITS, has_manifest, load_manifest
from innerloop.llm.data.rows import Row
from innerloop.llm.data.starter_configs import CONFIG_PATTERN

_MESSAGE = pa.struct(
    [pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)]
)
_SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("messages", pa.list_(pa.field("element", _MESSAGE, nullable=False)), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as parquet, with the columns prompt, response, messages, answer and metadata.

    Args:
        path: the file; its folder is made.
        rows: any number, also none.
    """
    columns: Mapping[str, Sequence[object]] = {
        "prompt": [row.prompt for row in rows],
        "response": [row.response for row in rows],
        "messages": [
            [{"role": message.role, "content": message.content} for message in row.messages] for row in rows
        ],
        "answer": [row.answer for row in rows],
        "metadata": [row.metadata for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Every choice that shapes the bytes is made here, not left to the writer's defaults of the day.
    pq.write_table(
        pa.Table.from_pydict(columns, schema=_SCHEMA),
        path,
        row_group_size=4096,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        store_schema=False,
    )


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``directory`` when the block ends well.

    Until then ``directory`` is untouched, and after an error nothing of the new folder is left.

    Args:
        directory: absent, empty, or a folder that this package prepared and nobody added to.

    Raises:
        InputError: if ``directory`` holds anything else.
    """
    _check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.parent / f".{directory.name}.writing-{os.getpid()}"
    try:
        fresh.mkdir()
        yield fresh
        _exchange(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _exchange(fresh: Path, directory: Path) -> None:
    """Puts the fresh folder in the place of the other; on any interruption the old one is put back."""
    old = fresh.with_name(fresh.name.replace(".writing-", ".old-"))
    try:
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    finally:
        if old.exists() and not directory.exists():
            old.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file; name a folder with --output-dir")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not has_manifest(directory):
        raise InputError(f"{directory}: holds files that were not prepared here; name a new folder")
    own = {directory / MANIFEST, *directory.glob(CONFIG_PATTERN), directory / MIXED / MIXED_FILE}
    for task in load_manifest(directory).tasks:
        own |= {directory / task.name / f"{split}.parquet" for split in SPLITS}
    for path in sorted(directory.rglob("*")):
        if path not in own and not (path.is_dir() and any(path in file.parents for file in own)):
            raise InputError(f"{path}: was not prepared here and would be lost; move it or name a new folder")
