"""innerloop: models that adapt to a new task from a handful of examples."""

__version__ = "0.1.0"
