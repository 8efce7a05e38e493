"""Where jobs are kept: SQLite, PostgreSQL, MongoDB. Imports none of their libraries until one is opened."""
