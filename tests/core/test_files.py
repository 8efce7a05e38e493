"""Text files: whole, in their place, or one error and what was there before."""

from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole


def test_the_text_is_there_to_the_letter_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_whole(path, "a\r\nä\n")
    write_whole(path, "b\r\nä\n")
    assert path.read_bytes() == "b\r\nä\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"cannot write .*page\.html: "):
        write_whole(tmp_path / "file" / "page.html", "text")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(InputError, match="cannot write"):
        write_whole(path, "text")
    assert list(tmp_path.iterdir()) == [path]
