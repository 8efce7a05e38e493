"""Tensors on disk: written in shards, read whole or by rows whatever the shards were."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from innerloop.core.stored import StoredTensors

ROWS = torch.arange(14.0).view(7, 2)


def stored(folder: Path, cuts: Sequence[int]) -> StoredTensors:
    """The rows as so many processes would have written them, beside a tensor that all had whole."""
    save_file({"run/whole": torch.ones(3)}, folder / "tensors.safetensors")
    for number, part in enumerate(ROWS.split(list(cuts))):
        save_file({"run/cut": part.clone()}, folder / f"shard_{number:05d}.safetensors")
    return StoredTensors(folder, "run/")


@pytest.mark.parametrize("cuts", [(7,), (4, 3), (3, 3, 1), (2, 2, 2, 1, 0), (1,) * 7])
def test_any_rows_are_read_from_any_shards(tmp_path: Path, cuts: Sequence[int]) -> None:
    found = stored(tmp_path, cuts)
    assert set(found) == {"whole", "cut"}
    assert found.shape("cut") == (7, 2)
    assert torch.equal(found["cut"], ROWS)
    for start in range(8):
        for stop in range(start, 8):
            rows: Tensor = found.rows("cut", start, stop)
            assert torch.equal(rows, ROWS[start:stop]), (start, stop)
    assert torch.equal(found["whole"], torch.ones(3))


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        stored(tmp_path, (7,))["other"]
