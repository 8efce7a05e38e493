"""What happens to jobs, as streams of server-sent events.

However many watch a job, it is looked at once in every interval; what is new is read once and shared. Each
event carries an id that says how far its reader is, so a reader that was cut off goes on where it was.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from innerloop.service.api.views import job_view, line_views, metric_views
from innerloop.service.jobs.job import Job, LogLine, MetricValue
from innerloop.service.jobs.store import JobStore, StoreUnavailable

logger = logging.getLogger(__name__)

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
        self.wakes = 0
        self._woken, self._one = asyncio.Condition(), asyncio.Lock()
        self.looking: asyncio.Task[None] | None = None
        self.metrics: deque[MetricValue] = deque(maxlen=KEPT)
        self.lines: deque[LogLine] = deque(maxlen=KEPT)
        self._last_value, self._last_line = job.metric_count, job.log_count

    async def look(self) -> None:
        """Looks whether anything is new, and wakes the readers if so."""
        async with self._one:
            await self._look()

    async def wake(self) -> None:
        """Lets the readers see how things stand."""
        async with self._woken:
            self.wakes += 1
            self._woken.notify_all()

    async def wait(self, wakes: int) -> None:
        """Until the readers were woken more often than so; none misses what came while it was busy."""
        async with self._woken:
            await self._woken.wait_for(lambda: self.wakes > wakes)

    async def _look(self) -> None:
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
        await self.wake()

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
        self._closing = False

    async def close(self) -> None:
        """Ends all streams; their readers find out by themselves that the job is not over."""
        self._closing = True
        for watched in list(self._watched.values()):
            await watched.wake()

    async def follow(self, job: Job, cursor: Cursor) -> AsyncIterator[ServerSentEvent]:
        """Events of a job until it is over.

        Args:
            job: the job.
            cursor: where the reader is.
        """
        watched = self._watched.setdefault(job.id, _Watched(self._store, job))
        watched.readers += 1
        if watched.looking is None:
            watched.looking = asyncio.create_task(self._keep_looking(watched))
        try:
            if job.version > watched.job.version:
                # This reader knows more than the last look found: the job may not be over any more.
                await self._look(watched)
            while not self._closing:
                wakes = watched.wakes
                try:
                    events, cursor = await self._news(watched, cursor)
                except StoreUnavailable:
                    await asyncio.sleep(self._interval)
                    continue
                for event in events:
                    yield event
                if not events:
                    if watched.gone or watched.job.state.over:
                        yield ServerSentEvent(event="end", id=str(cursor), data=json.dumps({"id": job.id}))
                        return
                    await watched.wait(wakes)
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
        told = cursor.metric >= job.metric_count and cursor.line >= job.log_count
        if told and job.version >= cursor.seen:
            cursor = replace(cursor, seen=job.version + 1)
            # With ASCII alone: some readers of lines end one at rarer characters, too.
            text = json.dumps(job_view(job).model_dump(mode="json"))
            events.append(ServerSentEvent(event="job", id=str(cursor), data=text))
        return events, cursor

    async def _keep_looking(self, watched: _Watched) -> None:
        while watched.readers and not self._closing:
            await asyncio.sleep(self._interval)
            await self._look(watched)

    async def _look(self, watched: _Watched) -> None:
        try:
            await watched.look()
        except StoreUnavailable as failure:
            # Readers wait; the next look may reach it.
            logger.warning("job %s is not seen: %s", watched.job.id, failure)
