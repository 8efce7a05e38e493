"""Where jobs run: a worker takes one, a process of its own does the work, the worker reports."""
