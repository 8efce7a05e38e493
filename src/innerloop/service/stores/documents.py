"""A job as a document of MongoDB.

The newest metric values and lines lie in the job's own document, see
:mod:`~innerloop.service.stores.mongo`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from innerloop.service.jobs.job import JSON, Job, LogLine, MetricValue
from innerloop.service.jobs.store import Report
from innerloop.service.stores.rows import Row, job_of
from innerloop.service.stores.text import packed, storable, unpacked

Document = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLAIN = ("settings", "metrics", "results")
_MOMENTS = ("created_at", "updated_at", "started_at", "finished_at", "lease_until", "due_at")

# MongoDB's documents end at 16 MB.
_MOST_ENTRIES = 2000
_MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Batch:
    """The newest part of a job's metric values and lines.

    Args:
        metrics: values, numbered.
        lines: of the log, numbered.
    """

    metrics: Sequence[MetricValue] = field(default_factory=list)
    lines: Sequence[LogLine] = field(default_factory=list)


def encoded(row: Row) -> Document:
    """Values as MongoDB keeps them; what it is called in the row is what it is called there."""
    return {name: _encoded(name, value) for name, value in row.items()}


def encoded_moment(moment: datetime) -> int:
    """Microseconds since 1970: MongoDB's own dates end at milliseconds."""
    return (moment - _EPOCH) // _MICROSECOND


def decoded(document: Mapping[str, Any]) -> Job:
    """The job of a document."""
    row = {name: _decoded(name, value) for name, value in document.items()}
    return job_of({**row, "id": row["_id"]})


def encoded_batch(batch: Batch) -> Document:
    """The batch as the job's document holds it."""
    return {
        "metrics": [asdict(value) for value in batch.metrics],
        "lines": [asdict(line) for line in batch.lines],
    }


def decoded_batch(document: Mapping[str, Any]) -> Batch:
    """The batch of a job's document."""
    batch = document["batch"]
    return Batch(
        [MetricValue(**value) for value in batch["metrics"]], [LogLine(**line) for line in batch["lines"]]
    )


def parts(report: Report) -> Iterator[Report]:
    """The report in parts that each fit into a document; mostly it is one."""
    values = [report.metrics[i : i + _MOST_ENTRIES] for i in range(0, len(report.metrics), _MOST_ENTRIES)]
    lines = list(_groups(report.lines))
    for i in range(max(1, len(values), len(lines))):
        yield Report(
            report.step,
            values[i] if i < len(values) else (),
            lines[i] if i < len(lines) else (),
            report.wandb_run_id,
        )


def _groups(lines: Sequence[LogLine]) -> Iterator[list[LogLine]]:
    group: list[LogLine] = []
    size = 0
    for line in lines:
        size += len(line.text)
        if group and (size > _MOST_CHARACTERS or len(group) == _MOST_ENTRIES):
            yield group
            group, size = [], len(line.text)
        group.append(line)
    if group:
        yield group


def _encoded(name: str, value: object) -> object:
    if value is None:
        return None
    if name in _PLAIN:
        # As text, so that keys may hold dots and dollars and numbers may be of any size.
        return packed(cast(JSON, value))
    if isinstance(value, datetime):
        return encoded_moment(value)
    return storable(str(value)) if isinstance(value, str) else value


def _decoded(name: str, value: Any) -> object:
    if value is None:
        return None
    if name in _PLAIN:
        return unpacked(value)
    return _EPOCH + value * _MICROSECOND if name in _MOMENTS else value
