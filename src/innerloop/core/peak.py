"""How much memory this process has needed."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory() -> int:
    """The most memory the process has held so far, in bytes: on the GPU if one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage begins at the size of the process that started this one; the high-water mark does not.
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(mark.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
