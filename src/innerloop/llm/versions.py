"""Which releases a result was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("torch", "transformers", "peft", "datasets", "safetensors", "numpy")


def installed_version(distribution: str) -> str | None:
    """The installed release of a distribution, or none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def library_versions() -> dict[str, str]:
    """Python's, innerloop's and the main libraries' releases, for the record beside a result."""
    names = ("innerloop", *LIBRARIES)
    found = {name: installed_version(name) for name in names}
    return {
        "python": platform.python_version(),
        **{name: release for name, release in found.items() if release},
    }
