"""Jobs in SQLite or PostgreSQL.

A change locks the job's row, reads it, and writes what :mod:`~innerloop.service.stores.changes` makes of it,
in one transaction: the lock is the fence. Metric values and lines get their numbers under the same lock,
hence in the order of the commits: who has read up to a number misses none that comes later.
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from innerloop.service.jobs.job import Job, Kind, LogLine, MetricValue
from innerloop.service.jobs.states import HELD, State
from innerloop.service.jobs.store import (
    Claim,
    IdempotencyKey,
    KeyReused,
    LeaseLost,
    Outcome,
    Page,
    Report,
    StoreUnavailable,
)
from innerloop.service.stores import changes
from innerloop.service.stores.availability import Address
from innerloop.service.stores.engines import clock, for_reading
from innerloop.service.stores.rows import changed_row, job_of, new_row
from innerloop.service.stores.tables import idempotency_keys, jobs, log_lines, metrics
from innerloop.service.stores.text import storable

# PostgreSQL calls it an internal error when it ends the session of a client that was too slow.
_UNAVAILABLE = (OperationalError, InterfaceError, InternalError)


class SqlStore:
    """A :class:`~innerloop.service.jobs.store.JobStore` in a database that has the tables.

    Args:
        engine: of :mod:`~innerloop.service.stores.engines`.
        address: of the database, for messages.
    """

    def __init__(self, engine: Engine, address: Address) -> None:
        self._engine = engine
        self._address = address
        self._readers = for_reading(engine)
        self._now = clock(engine)

    def create(self, job: Job, key: IdempotencyKey | None = None) -> Job:
        """See the protocol."""
        while True:
            with self._writing() as connection:
                if key is None or self._keep_key(connection, key, job.id):
                    connection.execute(insert(jobs).values(new_row(job)))
                    return _the(connection, job.id)
                if (before := _created_by(connection, key)) is not None:
                    return before
                # The job of this key was deleted between the two looks; the key went with it.

    def get(self, identifier: str) -> Job | None:
        """See the protocol."""
        with self._reading() as connection:
            return _first(connection, select(jobs).where(jobs.c.id == identifier))

    def page(self, kind: Kind | None, states: Collection[State] = (), skip: int = 0, limit: int = 50) -> Page:
        """See the protocol."""
        wanted = []
        if kind is not None:
            wanted.append(jobs.c.kind == kind)
        if states:
            wanted.append(jobs.c.state.in_(states))
        newest = select(jobs).where(*wanted).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        with self._reading() as connection:
            total = connection.scalar(select(func.count()).select_from(jobs).where(*wanted))
            rows = connection.execute(newest.offset(skip).limit(limit)).mappings()
            return Page([_job(row) for row in rows], total or 0)

    def move(self, identifier: str, seen: State, to: State, keep: bool = False) -> Job | None:
        """See the protocol."""
        with self._writing() as connection:
            job = _locked(connection, jobs.c.id == identifier, jobs.c.state == seen)
            if job is None:
                return None
            return _write(connection, changes.moved(job, to, keep, self._now(connection)))

    def delete(self, identifier: str) -> bool:
        """See the protocol."""
        free = and_(jobs.c.id == identifier, jobs.c.state.not_in(HELD))
        with self._writing() as connection:
            return connection.execute(delete(jobs).where(free)).rowcount == 1

    def claim(self, worker: str, seconds: float, most_losses: int) -> Claim | None:
        """See the protocol."""
        while self._somebody_waits():
            with self._writing() as connection:
                now = self._now(connection)
                longest = select(jobs).where(_waits(now)).order_by(jobs.c.due_at, jobs.c.id).limit(1)
                job = _first(connection, longest.with_for_update(skip_locked=True))
                if job is None:
                    return None
                job = _write(connection, changes.taken(job, worker, seconds, most_losses, now))
            if job.state is State.RUNNING and job.lease is not None:
                return Claim(job.id, worker, job.lease.token)
        return None

    def report(self, claim: Claim, report: Report, seconds: float) -> Job:
        """See the protocol."""
        with self._writing() as connection:
            job = _held(connection, claim)
            now = self._now(connection)
            values = changes.fresh_values(report.metrics, _known(connection, job, report), job.metric_count)
            if values:
                connection.execute(insert(metrics), [{"job_id": job.id, **vars(value)} for value in values])
            lines = changes.fresh_lines(report.lines, job.log_count)
            if lines:
                connection.execute(insert(log_lines), [{"job_id": job.id, **vars(line)} for line in lines])
            told = changes.reported(job, report, values, lines, now)
            return _write(connection, changes.renewed(told, seconds, now))

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """See the protocol."""
        with self._writing() as connection:
            job = _held(connection, claim)
            return _write(connection, changes.finished(job, outcome, self._now(connection)))

    def metrics(
        self,
        identifier: str,
        name: str | None = None,
        since_step: int = 0,
        after: int = 0,
        limit: int = 10_000,
    ) -> list[MetricValue]:
        """See the protocol."""
        columns = metrics.c
        wanted = select(columns.step, columns.name, columns.value, columns.number).where(
            columns.job_id == identifier, columns.number > after, columns.step >= since_step
        )
        if name is not None:
            wanted = wanted.where(columns.name == name)
        with self._reading() as connection:
            rows = connection.execute(wanted.order_by(columns.number).limit(limit))
            return [MetricValue(*row) for row in rows]

    def lines(self, identifier: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """See the protocol."""
        columns = log_lines.c
        wanted = select(columns.text, columns.number).where(
            columns.job_id == identifier, columns.number > after
        )
        with self._reading() as connection:
            rows = connection.execute(wanted.order_by(columns.number).limit(limit))
            return [LogLine(*row) for row in rows]

    def counts(self) -> dict[tuple[Kind, State], int]:
        """See the protocol."""
        counted = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        with self._reading() as connection:
            return {(Kind(kind), State(state)): count for kind, state, count in connection.execute(counted)}

    def close(self) -> None:
        """See the protocol."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with available(self._address), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with available(self._address), self._readers.begin() as connection:
            yield connection

    def _somebody_waits(self) -> bool:
        """A look that takes no lock, so that idle workers do not stand in the way of busy ones."""
        with self._reading() as connection:
            waits = exists().where(_waits(self._now(connection)))
            return bool(connection.scalar(select(waits)))

    def _keep_key(self, connection: Connection, key: IdempotencyKey, identifier: str) -> bool:
        """Keeps the key; whether it is new."""
        insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = {"key": key.key, "fingerprint": key.fingerprint, "job_id": identifier}
        new = insertion(idempotency_keys).values(row).on_conflict_do_nothing()
        return connection.execute(new.returning(idempotency_keys.c.key)).first() is not None


@contextmanager
def available(address: Address) -> Iterator[None]:
    """Makes of an error that lies with the database or the way to it one that callers may wait out.

    Raises:
        StoreUnavailable: there was such an error.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailable(address.trouble(error)) from error
    except DBAPIError as error:
        if _lies_with_the_database(error):
            raise StoreUnavailable(address.trouble(error.orig or error)) from error
        raise


def _lies_with_the_database(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        # SQLite's driver has one class for a full disk and for a statement that makes no sense.
        return error.orig.sqlite_errorcode != sqlite3.SQLITE_ERROR
    return isinstance(error, _UNAVAILABLE) or error.connection_invalidated


def _job(row: RowMapping) -> Job:
    return job_of({str(name): value for name, value in row.items()})


def _first(connection: Connection, wanted: Select[tuple[object, ...]]) -> Job | None:
    row = connection.execute(wanted).mappings().first()
    return None if row is None else _job(row)


def _locked(connection: Connection, *conditions: ColumnElement[bool]) -> Job | None:
    return _first(connection, select(jobs).where(*conditions).with_for_update())


def _held(connection: Connection, claim: Claim) -> Job:
    """The job, locked, if it is the claim's."""
    mine = and_(jobs.c.lease_token == claim.token, jobs.c.state.in_(HELD))
    job = _locked(connection, jobs.c.id == claim.id, mine)
    if job is None:
        raise LeaseLost(f"job {claim.id} is not {claim.worker}'s any more")
    return job


def _write(connection: Connection, job: Job) -> Job:
    """Writes a job that is locked; gives it as it is then."""
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(changed_row(job)))
    return _the(connection, job.id)


def _the(connection: Connection, identifier: str) -> Job:
    return _job(connection.execute(select(jobs).where(jobs.c.id == identifier)).mappings().one())


def _created_by(connection: Connection, key: IdempotencyKey) -> Job | None:
    """The job that a key created, if the request is the same."""
    keys = idempotency_keys.c
    kept = select(keys.job_id, keys.fingerprint).where(keys.key == key.key)
    row = connection.execute(kept).first()
    if row is None:
        return None
    if row.fingerprint != storable(key.fingerprint):
        raise KeyReused("this idempotency key came before, with another request")
    return _first(connection, select(jobs).where(jobs.c.id == row.job_id))


def _waits(now: datetime) -> ColumnElement[bool]:
    # A queued job waits whatever the time says, should the clock have been set back.
    return and_(jobs.c.due_at.is_not(None), or_(jobs.c.state == State.QUEUED, jobs.c.due_at <= now))


def _known(connection: Connection, job: Job, report: Report) -> set[tuple[int, str]]:
    """Steps and names that have a value, among the steps of the report."""
    if not report.metrics:
        return set()
    steps = [value.step for value in report.metrics]
    near = and_(metrics.c.job_id == job.id, metrics.c.step.between(min(steps), max(steps)))
    return {
        (row.step, row.name) for row in connection.execute(select(metrics.c.step, metrics.c.name).where(near))
    }
