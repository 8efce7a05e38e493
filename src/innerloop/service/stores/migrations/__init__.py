"""The history of the tables; alembic runs it, ``innerloop.service.stores.upgrading`` calls alembic."""
