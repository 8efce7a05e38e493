"""Writes the report's three files, all or none."""

import os
from dataclasses import dataclass
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.report.analysis import analyse
from innerloop.report.export import csv_text, json_text
from innerloop.report.formatting import metric_format
from innerloop.report.page import html_text
from innerloop.report.study import Study
from innerloop.report.verdict import judge


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written."""

    html: Path
    json: Path
    csv: Path


def write_report(study: Study, path: Path) -> ReportFiles:
    """Writes a study's report: the page, and its numbers as JSON and CSV beside it.

    Args:
        study: what to report on.
        path: of the page, ending in .html; its folder is made when missing.

    Returns:
        The three files.

    Raises:
        InputError: a path that does not end in .html, or that cannot be written; nothing is left behind.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report '{path}' must end in .html; its JSON and CSV are written beside it")
    files = ReportFiles(path, path.with_suffix(".json"), path.with_suffix(".csv"))
    analysis, write = analyse(study), metric_format(study)
    verdict = judge(analysis, write)
    page = html_text(analysis, verdict, write, (files.json.name, files.csv.name))
    _write_together(
        {files.json: json_text(analysis, verdict), files.csv: csv_text(analysis), files.html: page}
    )
    return files


def _write_together(texts: dict[Path, str]) -> None:
    """Writes every text to a temporary sibling first, so that a full disk spoils no earlier report."""
    for path in texts:
        if path.is_dir():
            raise InputError(f"cannot write the report to '{path}': it is a folder; choose another with -o")
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8")
        for path, sibling in temporary.items():
            sibling.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write the report to '{error.filename or path}': {error.strerror or error}; "
            "choose another place with -o"
        ) from error
    finally:
        for sibling in temporary.values():
            if sibling.exists():
                sibling.unlink()
