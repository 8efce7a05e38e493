"""The memory that a process keeps, seen by the pages it has to fault in."""

import subprocess
import sys

import pytest

BLOCKS = 20
CHILD = f"""
import resource, sys, torch
from innerloop.core.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range({BLOCKS}):  # until the heap has grown to what it needs
    torch.zeros(64 << 18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({BLOCKS}):
    torch.zeros(64 << 18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHILD, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only the GNU C library has the option")
def test_a_freed_block_is_used_again_instead_of_being_faulted_in_anew() -> None:
    # None where freed blocks are used again, and all the pages of each block otherwise.
    assert 4 * _faults("keep") < _faults("leave")
