"""What an evaluation has measured so far, kept until its record is written."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.core.files import write_whole
from innerloop.rl.artifacts import Training
from innerloop.rl.records import Measured, measured_from

KEPT_FILE = "measured.json"


class KeptMeasurements:
    """The methods measured so far, in a file of the evaluation's folder.

    Args:
        folder: of the evaluation.
        asked: all that a measurement depends on besides the method; what was measured otherwise is left
            aside.
    """

    def __init__(self, folder: Path, asked: Mapping[str, object]) -> None:
        self._path = folder / KEPT_FILE
        # As JSON gives it back, so that it can be compared.
        self._asked = json.loads(json.dumps(asked))
        self._kept: dict[str, Measured] = {}
        if self._path.exists():
            self._read()

    def find(self, name: str, training: Training | None) -> Measured | None:
        """What was measured of a method that was trained so, or none."""
        kept = self._kept.get(name)
        return kept if kept is not None and kept.training == training else None

    def add(self, measured: Measured) -> None:
        """Keeps one method more.

        Raises:
            InputError: the folder cannot be written to.
        """
        self._kept[measured.name] = measured
        content = {"asked": self._asked, "methods": [asdict(entry) for entry in self._kept.values()]}
        write_whole(self._path, json.dumps(content) + "\n")

    def drop(self) -> None:
        """Takes the file away: the record is written."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["asked"] == self._asked:
                self._kept = {entry["name"]: measured_from(entry) for entry in content["methods"]}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{self._path} is damaged ({error}); delete it and evaluate again") from error
