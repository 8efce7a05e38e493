"""What happens to jobs, as streams of server-sent events.

However many watch a job, it is looked at once in every interval; what is new is read once and shared. Each
event carries an id that says how far its reader is, so a reader that was cut off goes on where it was.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from innerloop.service.api.views import job_view, line_views, metric_views
from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.store import JobStore, StoreUnavailable

BATCH = 1000
"""Values or lines in one event."""

KEPT = 4000
"""Newest values and lines kept in memory for each job that is watched."""


@dataclass(frozen=True)
class Cursor:
    """How far a reader of a job's events is.

    Args:
        seen: one more than the version of the job's record that it saw last; 0 for none.
        metric: number of the last value it has.
        line: number of the last line it has.
    """

    seen: int
    metric: int
    line: int

    def __str__(self) -> str:
        return f"{self.seen}-{self.metric}-{self.line}"

    @classmethod
    def read(cls, text: str | None) -> "Cursor | None":
        """The cursor that an event's id is; none for anything else."""
        parts = (text or "").split("-")
        if len(parts) != 3 or not all(part.isdecimal() and len(part) < 16 for part in parts):
            return None
        return cls(*map(int, parts))


class _Watched:
    """A job that somebody watches.

    Args:
        store: of jobs.
        job: as it was when the watching began.
    """

    def __init__(self, store: JobStore, job: Job) -> None:
        self._store, self.job, self.readers = store, job, 0
        self.gone = False
        self.changed = asyncio.Condition()
        self.looking: asyncio.Task[None] | None = None
        self.metrics: deque[MetricValue] = deque(maxlen=KEPT)
        self.lines: deque[LogLine] = deque(maxlen=KEPT)
        self._last_value, self._last_line = job.metric_count, job.log_count

    async def look(self) -> None:
        """Looks whether anything is new, and wakes the readers if so."""
        now = await run_in_threadpool(self._store.get, self.job.id)
        if now is None:
            self.gone = True
        elif now.version == self.job.version and self._has_all(now):
            return
        else:
            while now.metric_count > self._last_value and (values := await self._values(self._last_value)):
                self.metrics += values
                self._last_value = values[-1].number
            while now.log_count > self._last_line and (lines := await self._lines(self._last_line)):
                self.lines += lines
                self._last_line = lines[-1].number
            self.job = now
        async with self.changed:
            self.changed.notify_all()

    async def values_after(self, number: int) -> Sequence[MetricValue]:
        """The next values after a number, from memory where they are there."""
        if self.metrics and self.metrics[0].number <= number + 1:
            return [value for value in self.metrics if value.number > number][:BATCH]
        return await self._values(number)

    async def lines_after(self, number: int) -> Sequence[LogLine]:
        """The next lines after a number, from memory where they are there."""
        if self.lines and self.lines[0].number <= number + 1:
            return [line for line in self.lines if line.number > number][:BATCH]
        return await self._lines(number)

    def _has_all(self, job: Job) -> bool:
        return job.metric_count <= self._last_value and job.log_count <= self._last_line

    async def _values(self, after: int) -> list[MetricValue]:
        return await run_in_threadpool(self._store.metrics, self.job.id, None, 0, after, BATCH)

    async def _lines(self, after: int) -> list[LogLine]:
        return await run_in_threadpool(self._store.lines, self.job.id, after, BATCH)


class EventStream:
    """All that is watched.

    Args:
        store: of jobs.
        interval: seconds between two looks at a job.
    """

    def __init__(self, store: JobStore, interval: float) -> None:
        self._store, self._interval = store, interval
        self._watched: dict[str, _Watched] = {}
        self._closing = asyncio.Event()

    async def find(self, kind: Kind, identifier: str) -> Job | None:
        """A job of a kind."""
        job = await run_in_threadpool(self._store.get, identifier)
        return job if job is not None and job.kind is kind else None

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()

    async def follow(self, job: Job, cursor: Cursor) -> AsyncIterator[ServerSentEvent]:
        """Events of a job until it is over.

        Args:
            job: the job.
            cursor: where the reader is.
        """
        watched = self._watched.setdefault(job.id, _Watched(self._store, job))
        watched.readers += 1
        if watched.readers == 1:
            watched.looking = asyncio.create_task(self._keep_looking(watched))
        try:
            while not self._closing.is_set():
                events, cursor = await self._news(watched, cursor)
                for event in events:
                    yield event
                if not events:
                    if watched.gone or watched.job.state.over:
                        yield ServerSentEvent(event="end", id=str(cursor), data=json.dumps({"id": job.id}))
                        return
                    await self._wait(watched)
        finally:
            watched.readers -= 1
            if not watched.readers:
                self._watched.pop(job.id, None)

    async def _news(self, watched: _Watched, cursor: Cursor) -> tuple[list[ServerSentEvent], Cursor]:
        """The next events for a reader, and where it is after them."""
        events, job = [], watched.job
        if job.metric_count > cursor.metric and (values := await watched.values_after(cursor.metric)):
            cursor = replace(cursor, metric=values[-1].number)
            data = [view.model_dump() for view in metric_views(list(values))]
            events.append(ServerSentEvent(event="metrics", id=str(cursor), data=json.dumps(data)))
        if job.log_count > cursor.line and (lines := await watched.lines_after(cursor.line)):
            cursor = replace(cursor, line=lines[-1].number)
            data = [view.model_dump() for view in line_views(list(lines))]
            events.append(ServerSentEvent(event="log", id=str(cursor), data=json.dumps(data)))
        # Last, so that whoever sees a job completed has all of its values.
        if job.version >= cursor.seen:
            cursor = replace(cursor, seen=job.version + 1)
            events.append(ServerSentEvent(event="job", id=str(cursor), data=job_view(job).model_dump_json()))
        return events, cursor

    async def _wait(self, watched: _Watched) -> None:
        """Until something is new, or a while has passed."""
        try:
            async with asyncio.timeout(5), watched.changed:
                await watched.changed.wait()
        except TimeoutError:
            return  # the service may be closing, which only a look tells

    async def _keep_looking(self, watched: _Watched) -> None:
        while watched.readers and not self._closing.is_set():
            await asyncio.sleep(self._interval)
            try:
                await watched.look()
            except StoreUnavailable:
                continue  # readers wait; the next look may reach it
