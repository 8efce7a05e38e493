"""Compares evaluated methods and says who won, at what cost, and how sure that is.

Reads evaluation folders (`read_study`), writes one self-contained HTML page with its numbers as JSON and CSV
(`write_report`), and draws the main table in a terminal (`summary_table`, `print_table`). It knows rows of
results, no domain: what was learned, and from what, is only a name here.
"""

from innerloop.report.console import print_table, summary_table
from innerloop.report.output import ReportFiles, write_report
from innerloop.report.reading import read_study
from innerloop.report.study import Study

__all__ = ["ReportFiles", "Study", "print_table", "read_study", "summary_table", "write_report"]
