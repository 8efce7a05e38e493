"""Where this folder is on the path, workers have their jobs done by the program that stands in."""

import sys
from pathlib import Path

from innerloop.service.work import process

process.PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "stand_in.py"))
