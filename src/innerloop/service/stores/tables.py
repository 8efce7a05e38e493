"""The tables of the SQL databases and the types of their columns.

What is here is what :mod:`~innerloop.service.stores.migrations` arrive at; a test compares the two.
"""

import math
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator

from innerloop.service.jobs.job import JSON
from innerloop.service.stores.text import packed, storable, unpacked


class Words(TypeDecorator[str]):
    """Text; what no database takes is replaced, in what is kept and in what is looked for."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """See SQLAlchemy."""
        return None if value is None else storable(str(value))


class Plain(TypeDecorator[JSON]):
    """Plain data as text, because the databases' own JSON has no NaN."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: JSON, dialect: Dialect) -> str | None:  # noqa: ARG002
        """See SQLAlchemy."""
        return None if value is None else packed(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> JSON:  # noqa: ARG002
        """See SQLAlchemy."""
        return None if value is None else unpacked(value)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no time zones and PostgreSQL gives the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """See SQLAlchemy."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """See SQLAlchemy."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Real(TypeDecorator[float]):
    """A number; not-a-number is kept as NULL, which is what SQLite makes of it."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """See SQLAlchemy."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:  # noqa: ARG002
        """See SQLAlchemy."""
        return math.nan if value is None else value


metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("description", Words, nullable=False),
    Column("settings", Plain, nullable=False),
    Column("total_episodes", BigInteger, nullable=False),
    Column("state", Words, nullable=False),
    Column("keep", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("current_episode", BigInteger, nullable=False),
    Column("metrics", Plain, nullable=False),
    Column("error_message", Words),
    Column("results", Plain),
    Column("model_path", Words),
    Column("wandb_run_id", Words),
    Column("lease_worker", Words),
    Column("lease_token", BigInteger),
    Column("lease_until", Moment),
    Column("metric_count", BigInteger, nullable=False),
    Column("log_count", BigInteger, nullable=False),
    Column("losses", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Moment),
    Index("jobs_newest", "created_at", "id"),
    # Only jobs that wait or run have a due time, so the queue stays short however many are over.
    Index(
        "jobs_due",
        "due_at",
        "id",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
)


def _job_column() -> Column[str]:
    return Column("job_id", Words, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


metrics = Table(
    "metrics",
    metadata,
    _job_column(),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Words, primary_key=True),
    Column("value", Real),
    Column("number", BigInteger, nullable=False),
    Index("metrics_number", "job_id", "number", unique=True),
)

log_lines = Table(
    "log_lines",
    metadata,
    _job_column(),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Words, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Words, primary_key=True),
    Column("fingerprint", Words, nullable=False),
    # Deferred: of two creations with one key, the key decides before either has a job.
    Column(
        "job_id",
        Words,
        ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Index("idempotency_keys_job", "job_id"),
)
