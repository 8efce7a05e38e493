"""Where converted models and decoded data sets are kept, and how a folder gets there whole or not at all.

What is put into such a folder is the business of the modules that build it.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

CACHE_VARIABLE = "INNERLOOP_CACHE"


def cache_folder() -> Path:
    """What INNERLOOP_CACHE names, else the platform's own place for caches. It may not exist yet."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "innerloop"


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Builds a cached folder unless it is there, safe against processes that ask for it at the same time.

    Args:
        target: the folder wanted. Where it exists it is whole, and is taken as it stands.
        build: fills the empty folder it is given.

    Returns:
        ``target``.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_dir():  # another process built it while this one waited for the lock
            return target
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            build(partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target
