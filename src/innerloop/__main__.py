"""``python -m innerloop`` and ``torchrun -m innerloop`` are the command ``innerloop``."""

from innerloop.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
