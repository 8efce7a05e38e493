"""Run by alembic for every command, in the transaction of the connection that the caller gives."""

from alembic import context

from innerloop.service.stores.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
