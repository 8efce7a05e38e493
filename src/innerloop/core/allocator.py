"""How a process that computes on the CPU gives memory back."""

import ctypes
import sys

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_BLOCK, _NEVER = 1 << 30, (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Has the C library keep what tensors free, up to 1 GiB a block, for the next ones of that size.

    By default it maps large blocks afresh and unmaps them when they are freed, so that every pass over a
    batch of images faults in all its pages again: half the time of a convolutional net in training. All
    threads share one heap, because those that others have give memory back all the same. The process then
    holds on to the most memory it ever needed. A decision for a whole process, so commands take
    it and the library does not.

    Returns:
        Whether it could be set; only the GNU C library on Linux has the option.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = {_M_MMAP_THRESHOLD: _LARGEST_BLOCK, _M_TRIM_THRESHOLD: _NEVER, _M_ARENA_MAX: 1}
    return all(mallopt(option, value) for option, value in options.items())
