"""Streams of events: their order, going on where one broke off, and what many readers cost."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from innerloop.service.api.events import Cursor, EventStream
from innerloop.service.jobs.job import Job
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, Outcome, StoreUnavailable
from service.api.live import Told, events_in, numbers
from service.api.standing import completed, failed, now, pending, running, told

INTERVAL = 0.01


def stream_of(client: TestClient, job: Job, last: str | None = None, **query: int) -> list[Told]:
    """All events of a job that is over."""
    headers = {} if last is None else {"Last-Event-ID": last}
    path = f"/api/training/{job.kind}/{job.id}/events"
    answer = client.get(path, headers=headers, params=query)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    return list(events_in(answer.text.splitlines()))


def large(store: JobStore, values: int = 2500, lines: int = 1500) -> Job:
    """A completed job with more values and lines than an event holds."""
    claim = running(store)
    told(store, claim, [float(number) for number in range(values)], [f"line {n}" for n in range(lines)])
    return store.finish(claim, Outcome(State.COMPLETED))


def test_values_and_lines_come_before_the_event_that_tells_of_the_end(
    client: TestClient, store: JobStore
) -> None:
    events = stream_of(client, completed(store))
    assert [event.event for event in events] == ["metrics", "log", "job", "end"]
    assert events[0].data[0] == {"number": 1, "step": 1, "name": "loss", "value": 0.5}
    assert events[1].data == [{"number": 1, "text": "begins"}, {"number": 2, "text": "ends"}]
    assert events[2].data["state"] == "completed"


def test_however_many_there_are_all_values_and_lines_come_before_the_end_is_told(
    client: TestClient, store: JobStore
) -> None:
    events = stream_of(client, large(store))
    assert [event.event for event in events][-2:] == ["job", "end"]
    assert [event.event for event in events].count("job") == 1
    assert numbers(events, "metrics") == list(range(1, 2501))
    assert numbers(events, "log") == list(range(1, 1501))


def test_a_stream_that_is_cut_after_any_event_goes_on_with_what_is_missing(
    client: TestClient, store: JobStore
) -> None:
    job = large(store)
    events = stream_of(client, job)
    for cut, last in enumerate(events, 1):
        rest = stream_of(client, job, last.id)
        for name in ("metrics", "log"):
            assert numbers(events[:cut], name) + numbers(rest, name) == numbers(events, name)
        jobs = [event for event in [*events[:cut], *rest] if event.event == "job"]
        assert len(jobs) == 1
        assert rest[-1].event == "end"


def test_a_reader_that_has_the_first_values_and_lines_asks_for_the_others(
    client: TestClient, store: JobStore
) -> None:
    events = stream_of(client, large(store), after_metric=2499, after_line=1500)
    assert [event.event for event in events] == ["metrics", "job", "end"]
    assert numbers(events, "metrics") == [2500]


@pytest.mark.parametrize("last", ["", "x", "1-2", "1-2-3-4", "-1-0-0", "a-b-c", "9" * 40 + "-0-0", "²-1-1"])
def test_an_id_that_is_none_of_ours_begins_at_the_beginning(
    client: TestClient, store: JobStore, last: str
) -> None:
    job = completed(store)
    path = f"/api/training/meta-tasks/{job.id}/events"
    answer = client.get(path, headers={"Last-Event-ID": last.encode("latin-1")})
    assert len(list(events_in(answer.text.splitlines()))) == 4


def test_a_name_with_the_rarest_line_ends_is_one_line_of_the_stream(
    client: TestClient, store: JobStore
) -> None:
    name = "a\u2028b\x85c"
    claim = running(store, name=name)
    told(store, claim, [], [name])
    events = stream_of(client, store.finish(claim, Outcome(State.FAILED, error_message=name)))
    # splitlines of stream_of cuts at all of them.
    assert [event.data for event in events if event.event == "log"] == [[{"number": 1, "text": name}]]
    assert [event.data["name"] for event in events if event.event == "job"] == [name]


class Counting:
    """A store that counts what is asked of it, and refuses while it is told to.

    Args:
        store: that answers.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.calls: dict[str, int] = {}
        self.down = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: object, **named: object) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if self.down:
                raise StoreUnavailable("gone for a while")
            return getattr(self._store, name)(*given, **named)

        return call


class Reader:
    """Reads a stream in the background.

    Args:
        stream: of events.
        job: that is watched.
        cursor: where to begin.
    """

    def __init__(self, stream: EventStream, job: Job, cursor: Cursor | None = None) -> None:
        self.events: list[Told] = []
        self.task = asyncio.create_task(self._read(stream.follow(job, cursor or Cursor(0, 0, 0))))

    async def _read(self, events: AsyncIterator[Any]) -> None:
        async for event in events:
            self.events.append(Told(event.event, event.id, json.loads(event.data)))

    async def sees(self, condition: Callable[[list[Told]], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition(self.events):
                await asyncio.sleep(INTERVAL)

    async def ends(self) -> None:
        async with asyncio.timeout(30):
            await self.task


def watched(
    store: JobStore, act: Callable[[EventStream, Counting, Claim], Any], interval: float = INTERVAL
) -> None:
    """Runs something on the stream of a new running job."""

    async def run() -> None:
        counting = Counting(store)
        stream = EventStream(counting, interval)  # type: ignore[arg-type]
        try:
            await act(stream, counting, running(store))
        finally:
            await stream.close()

    asyncio.run(run())


def test_what_is_new_comes_while_it_happens_and_once(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, claim: Claim) -> None:
        reader = Reader(stream, now(store, claim.id))
        for step in range(1, 11):
            told(store, claim, [step / 10], [f"step {step}"])
            await reader.sees(
                lambda events, step=step: numbers(events, "metrics") == list(range(1, step + 1))
            )
        store.finish(claim, Outcome(State.COMPLETED))
        await reader.ends()
        assert numbers(reader.events, "log") == list(range(1, 11))
        versions = [int(event.id.split("-")[0]) for event in reader.events if event.event == "job"]
        assert versions == sorted(set(versions))
        assert [event.event for event in reader.events][-2:] == ["job", "end"]
        assert reader.events[-2].data["state"] == "completed"

    watched(store, act)


def test_a_hundred_readers_cost_the_store_what_one_costs(store: JobStore) -> None:
    async def act(stream: EventStream, counting: Counting, claim: Claim) -> None:
        job = now(store, claim.id)
        readers = [Reader(stream, job) for _ in range(100)]
        for _ in range(5):
            told(store, claim, [0.5], ["a line"])
            await asyncio.sleep(0.1)
        store.finish(claim, Outcome(State.COMPLETED))
        for reader in readers:
            await reader.ends()
            assert numbers(reader.events, "metrics") == [1, 2, 3, 4, 5]
        # Looks, and one reading of what each found, whoever reads it.
        assert counting.calls["get"] < 0.1 * 5 / 0.05 + 60
        assert counting.calls["metrics"] <= 6
        assert counting.calls["lines"] <= 6

    watched(store, act, 0.05)


def test_looks_end_with_the_last_reader_and_begin_with_the_next(store: JobStore) -> None:
    async def act(stream: EventStream, counting: Counting, claim: Claim) -> None:
        for _ in range(3):
            reader = Reader(stream, now(store, claim.id))
            await reader.sees(lambda events: len(events) > 0)
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)
            await asyncio.sleep(0.1)
            before = counting.calls.get("get", 0)
            await asyncio.sleep(0.2)
            assert counting.calls.get("get", 0) == before

    watched(store, act)


def test_a_reader_that_comes_back_to_a_live_job_misses_nothing(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, claim: Claim) -> None:
        seen: list[Told] = []
        cursor = Cursor(0, 0, 0)
        for step in range(6):
            reader = Reader(stream, now(store, claim.id), cursor)
            told(store, claim, [1.0, 2.0], ["a", "b"])
            await reader.sees(lambda events, step=step: numbers(events, "log")[-1:] == [2 * step + 2])
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)
            seen += reader.events
            cursor = Cursor.read(seen[-1].id) or cursor
            told(store, claim, [], [])
        assert numbers(seen, "metrics") == list(range(1, 13))
        assert numbers(seen, "log") == list(range(1, 13))

    watched(store, act)


def test_a_deleted_job_ends_its_streams(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, __: Claim) -> None:
        job = pending(store)
        readers = [Reader(stream, job) for _ in range(2)]
        for reader in readers:
            await reader.sees(lambda events: len(events) == 1)
        store.delete(job.id)
        for reader in readers:
            await reader.ends()
            assert [event.event for event in reader.events] == ["job", "end"]

    watched(store, act)


def test_a_job_that_is_deleted_before_its_values_are_read_ends_the_stream(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, claim: Claim) -> None:
        told(store, claim, [1.0])
        job = store.finish(claim, Outcome(State.COMPLETED))
        store.delete(job.id)
        reader = Reader(stream, job)
        await reader.ends()
        assert [event.event for event in reader.events] == ["end"]

    watched(store, act)


@pytest.mark.parametrize("values", [1, 5000])
def test_a_store_that_fails_for_a_while_ends_no_stream(store: JobStore, values: int) -> None:
    async def act(stream: EventStream, counting: Counting, claim: Claim) -> None:
        told(store, claim, [0.5] * values)
        counting.down = True
        early = Reader(stream, now(store, claim.id))
        await asyncio.sleep(10 * INTERVAL)
        told(store, claim, [0.5], ["meanwhile"])
        counting.down = False
        await early.sees(lambda events: len(numbers(events, "metrics")) == values + 1)
        counting.down = True
        await asyncio.sleep(10 * INTERVAL)
        told(store, claim, [0.5], ["again"])
        store.finish(claim, Outcome(State.COMPLETED))
        counting.down = False
        await early.ends()
        assert numbers(early.events, "metrics") == list(range(1, values + 3))
        assert numbers(early.events, "log") == [1, 2]
        assert early.events[-1].event == "end"

    watched(store, act)


def test_who_knows_that_a_job_goes_on_is_not_told_that_it_is_over(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, __: Claim) -> None:
        job = failed(store)
        # It has seen nothing yet, so it keeps the state that the stream knows.
        slow = stream.follow(job, Cursor(0, 0, 0))
        assert (await anext(slow)).event == "job"
        resumed = store.move(job.id, State.FAILED, State.QUEUED)
        assert resumed is not None
        reader = Reader(stream, resumed)
        await reader.sees(lambda events: [event.data.get("state") for event in events] == ["queued"])
        await asyncio.sleep(5 * INTERVAL)
        assert not reader.task.done()
        await slow.aclose()  # type: ignore[attr-defined]

    # The next look is far away.
    watched(store, act, 600)


def test_closing_ends_all_streams_at_once_and_without_saying_that_the_job_is_over(store: JobStore) -> None:
    async def act(stream: EventStream, _: Counting, claim: Claim) -> None:
        readers = [Reader(stream, now(store, claim.id)) for _ in range(3)]
        for reader in readers:
            await reader.sees(lambda events: len(events) == 1)
        await stream.close()
        for reader in readers:
            await reader.ends()
            assert [event.event for event in reader.events] == ["job"]

    watched(store, act, 600)
