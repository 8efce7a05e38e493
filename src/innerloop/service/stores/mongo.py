"""Jobs in MongoDB, without its transactions, which a single server does not offer.

A change reads the job's document and replaces it on the condition that nobody changed it meanwhile; where
somebody did, it looks again. One document changes atomically, so everything that must change together lies in
it, a report's values and lines too: they are the document's *batch*, numbered on from the counts in the same
document. Before a batch gives way to the next one, its entries are copied into the collections of metrics and
lines, where their job and number (and job, step and name) are unique.

So a report that was broken off has either not happened or is in the document whole. A batch that was copied
in part is copied again by whoever comes next, and what is there already is left as it is: nothing is doubled,
even by a worker that wakes up amid an old copy. A reader takes the job's document first and then, from the
collection, only the numbers below its batch, all of which had to be there before this batch could be set:
whoever reads on from the highest number it has seen misses nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from pymongo import ASCENDING, DESCENDING, MongoClient, ReturnDocument, WriteConcern
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, InvalidName, PyMongoError

from innerloop.core.errors import InputError
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
from innerloop.service.stores.documents import (
    Batch,
    Document,
    decoded,
    decoded_batch,
    encoded,
    encoded_batch,
    encoded_moment,
    parts,
)
from innerloop.service.stores.rows import changed_row, new_row
from innerloop.service.stores.text import one_line, storable

REVISION = 1
"""Of the documents; a database that a newer version wrote has a higher one."""

_DUPLICATE = 11000
_ENTRY = {"_id": 0, "job": 0}
_BY_NUMBER = [("number", ASCENDING)]
_TIMES = {"serverSelectionTimeoutMS": 10_000, "connectTimeoutMS": 10_000, "socketTimeoutMS": 30_000}


class MongoStore:
    """A :class:`~innerloop.service.jobs.store.JobStore` in a MongoDB database.

    Args:
        url: ``mongodb://...``; options given there go before this store's own.
        database: its name, where the address has none.

    Raises:
        InputError: the address is none, it names no database, or a newer version wrote to it.
        StoreUnavailable: the database does not answer.
    """

    def __init__(self, url: str, database: str | None = None) -> None:
        self._address = Address(url)
        given = {name.lower() for name, _ in parse_qsl(url.partition("?")[2])}
        times: dict[str, Any] = {name: value for name, value in _TIMES.items() if name.lower() not in given}
        # What is acknowledged outlives the loss of a server; else a job might be taken twice after one.
        safe = WriteConcern("majority", wtimeout=30_000, j=True)
        try:
            self._client: MongoClient[Document] = MongoClient(url, **times)
            self._database = self._client.get_default_database(database, write_concern=safe)
        except (ConfigurationError, InvalidName, ValueError) as error:
            told = self._address.hide(one_line(error))
            raise InputError(f"'{self._address}' is no address of a MongoDB database: {told}") from error
        self._jobs = self._database["jobs"]
        self._metrics = self._database["metrics"]
        self._lines = self._database["log_lines"]
        try:
            with self._answering():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def create(self, job: Job, key: IdempotencyKey | None = None) -> Job:
        """See the protocol."""
        row = new_row(job)
        document = {"_id": row.pop("id"), **encoded(row), "batch": encoded_batch(Batch())}
        if key is not None:
            # In the same document: the key is kept if and only if the job is.
            document["key"] = {"key": storable(key.key), "fingerprint": storable(key.fingerprint)}
        with self._answering():
            while True:
                try:
                    self._jobs.insert_one(document)
                    return decoded(document)
                except DuplicateKeyError:
                    if key is None:
                        raise
                if (before := self._jobs.find_one({"key.key": document["key"]["key"]})) is not None:
                    if before["key"] != document["key"]:
                        raise KeyReused("this idempotency key came before, with another request")
                    return decoded(before)
                # The job of this key was deleted between the two looks; the key went with it.

    def get(self, identifier: str) -> Job | None:
        """See the protocol."""
        with self._answering():
            return self._find({"_id": storable(identifier)})

    def page(self, kind: Kind | None, states: Collection[State] = (), skip: int = 0, limit: int = 50) -> Page:
        """See the protocol."""
        wanted: Document = {} if kind is None else {"kind": str(kind)}
        if states:
            wanted["state"] = {"$in": _names(states)}
        newest = [("created_at", DESCENDING), ("_id", DESCENDING)]
        with self._answering():
            total = self._jobs.count_documents(wanted)
            if limit < 1:  # which MongoDB takes for no limit
                return Page([], total)
            found = self._jobs.find(wanted, {"batch": 0}, sort=newest, skip=skip, limit=limit)
            return Page([decoded(document) for document in found], total)

    def move(self, identifier: str, seen: State, to: State, keep: bool = False) -> Job | None:
        """See the protocol."""
        with self._answering():
            while job := self._find({"_id": storable(identifier), "state": str(seen)}):
                if moved := self._swap(job, changes.moved(job, to, keep, self._now())):
                    return moved
        return None

    def delete(self, identifier: str) -> bool:
        """See the protocol."""
        name = storable(identifier)
        with self._answering():
            gone = self._jobs.delete_one({"_id": name, "state": {"$nin": _names(HELD)}}).deleted_count == 1
            if gone or self._jobs.find_one({"_id": name}, {"_id": 1}) is None:
                # Also where there is no job: a deletion that was broken off here left these, unseen by
                # readers, who begin with the job.
                self._metrics.delete_many({"job": name})
                self._lines.delete_many({"job": name})
            return gone

    def claim(self, worker: str, seconds: float, most_losses: int) -> Claim | None:
        """See the protocol."""
        with self._answering():
            while True:
                now = self._now()
                longest = [("due_at", ASCENDING), ("_id", ASCENDING)]
                document = self._jobs.find_one(_waits(now), {"batch": 0}, sort=longest)
                if document is None:
                    return None
                job = decoded(document)
                taken = self._swap(job, changes.taken(job, worker, seconds, most_losses, now))
                if taken is not None and taken.state is State.RUNNING and taken.lease is not None:
                    return Claim(taken.id, worker, taken.lease.token)

    def report(self, claim: Claim, report: Report, seconds: float) -> Job:
        """See the protocol."""
        with self._answering():
            if report == Report():
                return self._renew(claim, seconds)
            for part in parts(report):
                job = self._add(claim, part, seconds)
            return job

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """See the protocol."""
        with self._answering():
            while True:
                job = decoded(self._held(claim))
                if done := self._swap(job, changes.finished(job, outcome, self._now())):
                    return done

    def metrics(
        self,
        identifier: str,
        name: str | None = None,
        since_step: int = 0,
        after: int = 0,
        limit: int = 10_000,
    ) -> list[MetricValue]:
        """See the protocol."""
        with self._answering():
            job = self._jobs.find_one({"_id": storable(identifier)}, {"metric_count": 1, "batch": 1})
            if job is None or limit < 1:
                return []
            batch = decoded_batch(job).metrics
            below = {"$gt": after, "$lt": batch[0].number if batch else job["metric_count"] + 1}
            wanted: Document = {"job": job["_id"], "number": below, "step": {"$gte": since_step}}
            if name is not None:
                wanted["name"] = name = storable(name)
            found = self._metrics.find(wanted, _ENTRY, sort=_BY_NUMBER, limit=limit)
            values = [MetricValue(**document) for document in found]
        newest = [value for value in batch if value.number > after and value.step >= since_step]
        return [*values, *(value for value in newest if name is None or value.name == name)][:limit]

    def lines(self, identifier: str, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """See the protocol."""
        with self._answering():
            job = self._jobs.find_one({"_id": storable(identifier)}, {"log_count": 1, "batch": 1})
            if job is None or limit < 1:
                return []
            batch = decoded_batch(job).lines
            below = {"$gt": after, "$lt": batch[0].number if batch else job["log_count"] + 1}
            wanted = {"job": job["_id"], "number": below}
            found = self._lines.find(wanted, _ENTRY, sort=_BY_NUMBER, limit=limit)
            lines = [LogLine(**document) for document in found]
        return [*lines, *(line for line in batch if line.number > after)][:limit]

    def counts(self) -> dict[tuple[Kind, State], int]:
        """See the protocol."""
        group = {"_id": {"kind": "$kind", "state": "$state"}, "count": {"$sum": 1}}
        with self._answering():
            return {
                (Kind(found["_id"]["kind"]), State(found["_id"]["state"])): found["count"]
                for found in self._jobs.aggregate([{"$group": group}])
            }

    def close(self) -> None:
        """See the protocol."""
        self._client.close()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except PyMongoError as error:
            raise StoreUnavailable(self._address.trouble(error)) from error

    def _prepare(self) -> None:
        schema = self._database["schema"]
        # Another service that opens it at the same time may be first.
        with suppress(DuplicateKeyError):
            schema.update_one({"_id": "jobs"}, {"$setOnInsert": {"revision": REVISION}}, upsert=True)
        found = schema.find_one({"_id": "jobs"})
        if found is not None and found["revision"] > REVISION:
            raise InputError(
                f"the database {self._address} is of revision {found['revision']}, which this innerloop does "
                "not know; install the version that wrote it or a newer one"
            )
        self._jobs.create_index([("created_at", DESCENDING), ("_id", DESCENDING)])
        self._jobs.create_index([("due_at", ASCENDING), ("_id", ASCENDING)])
        self._jobs.create_index("key.key", unique=True, sparse=True)
        self._metrics.create_index([("job", ASCENDING), ("number", ASCENDING)], unique=True)
        self._metrics.create_index(
            [("job", ASCENDING), ("step", ASCENDING), ("name", ASCENDING)], unique=True
        )
        self._lines.create_index([("job", ASCENDING), ("number", ASCENDING)], unique=True)

    def _now(self) -> datetime:
        """The server's time, which is the same for all workers."""
        told: datetime = self._database.command("hello")["localTime"]
        return told.replace(tzinfo=UTC)

    def _find(self, wanted: Document) -> Job | None:
        document = self._jobs.find_one(wanted, {"batch": 0})
        return None if document is None else decoded(document)

    def _held(self, claim: Claim) -> Document:
        document = self._jobs.find_one(_mine(claim))
        if document is None:
            raise _lost(claim)
        return document

    def _swap(self, seen: Job, new: Job, batch: Batch | None = None) -> Job | None:
        """Replaces a job by what it is to become; none where it is not any more as it was seen."""
        due = changes.due(seen)
        # A renewed lease leaves the version as it is, but not the due time.
        unchanged = {
            "_id": seen.id,
            "version": seen.version,
            "due_at": None if due is None else encoded_moment(due),
        }
        values = encoded(changed_row(new))
        if batch is not None:
            values["batch"] = encoded_batch(batch)
        return self._update(unchanged, values)

    def _update(self, wanted: Document, values: Document) -> Job | None:
        document = self._jobs.find_one_and_update(
            wanted, {"$set": values}, projection={"batch": 0}, return_document=ReturnDocument.AFTER
        )
        return None if document is None else decoded(document)

    def _renew(self, claim: Claim, seconds: float) -> Job:
        until = encoded_moment(self._now() + timedelta(seconds=seconds))
        job = self._update(_mine(claim), {"lease_until": until, "due_at": until})
        if job is None:
            raise _lost(claim)
        return job

    def _add(self, claim: Claim, report: Report, seconds: float) -> Job:
        while True:
            document = self._held(claim)
            job = decoded(document)
            self._copy(job.id, decoded_batch(document))
            values = changes.fresh_values(report.metrics, self._known(job, report), job.metric_count)
            lines = changes.fresh_lines(report.lines, job.log_count)
            now = self._now()
            told = changes.reported(job, report, values, lines, now)
            if added := self._swap(job, changes.renewed(told, seconds, now), Batch(values, lines)):
                return added

    def _copy(self, identifier: str, batch: Batch) -> None:
        """Copies a batch into the collections, as far as it is not there yet."""
        for collection, entries in ((self._metrics, batch.metrics), (self._lines, batch.lines)):
            if entries:
                _insert(collection, [{"job": identifier, **asdict(entry)} for entry in entries])

    def _known(self, job: Job, report: Report) -> set[tuple[int, str]]:
        """Steps and names that have a value, among the steps of the report; all batches are copied."""
        if not report.metrics:
            return set()
        near = {"job": job.id, "step": {"$in": sorted({value.step for value in report.metrics})}}
        return {(found["step"], found["name"]) for found in self._metrics.find(near, {"step": 1, "name": 1})}


def _insert(collection: MongoCollection[Document], documents: list[Document]) -> None:
    """Inserts documents, except those that are there."""
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        told: Mapping[str, Any] = error.details or {}
        if told.get("writeConcernErrors") or any(e["code"] != _DUPLICATE for e in told["writeErrors"]):
            raise


def _mine(claim: Claim) -> Document:
    """The fence: what a job is like that is still the claim's."""
    return {"_id": storable(claim.id), "lease_token": claim.token, "state": {"$in": _names(HELD)}}


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"job {claim.id} is not {claim.worker}'s any more")


def _waits(now: datetime) -> Document:
    # A queued job waits whatever the time says, should the clock have been set back.
    due = {"state": {"$in": _names(HELD)}, "due_at": {"$lte": encoded_moment(now)}}
    return {"due_at": {"$ne": None}, "$or": [{"state": str(State.QUEUED)}, due]}


def _names(states: Collection[State]) -> list[str]:
    return [str(state) for state in states]
