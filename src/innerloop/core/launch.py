"""What torchrun tells a process of its place, read from the environment; imports nothing slow."""

import os


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank_here() -> int:
    """This process's number among all of the run; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


def rank_on_machine() -> int:
    """This process's number among those on its machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0
