"""Brings a SQL database to the newest revision of the tables, whoever else opens it at the same time."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from innerloop.core.errors import InputError
from innerloop.service.stores.availability import Address

_SCRIPTS = "innerloop.service.stores:migrations"
_LOCK = 0x696E6E65  # any number that others in the same database are not likely to use


def upgrade(engine: Engine, address: Address, to: str = "head") -> None:
    """Runs the migrations that are missing, all or none of them.

    Args:
        engine: of the database.
        address: of it, for messages.
        to: the revision to arrive at.

    Raises:
        InputError: a newer version of innerloop has been there.
    """
    # On SQLite the transaction is the lock: it takes the file for writing when it begins.
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = Config()
        config.set_main_option("script_location", _SCRIPTS)
        config.attributes["connection"] = connection
        _check(connection, ScriptDirectory.from_config(config), address)
        command.upgrade(config, to)


def _check(connection: Connection, scripts: ScriptDirectory, address: Address) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    there = MigrationContext.configure(connection).get_current_revision()
    if there is not None and there not in known:
        raise InputError(
            f"the database {address} is of revision '{there}', which this innerloop does not know; "
            "install the version that wrote it or a newer one"
        )
