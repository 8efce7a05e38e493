"""``innerloop report``: compares evaluated methods in one HTML page."""

import argparse
from pathlib import Path


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the group's parser."""
    parser = groups.add_parser(
        "report",
        help="compare evaluated methods in one HTML page",
        description="Compare evaluated methods: learning curves, paired tests, cost. "
        "Writes one self-contained HTML page, and its numbers as JSON and CSV beside it.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders that 'innerloop evaluate' wrote, one a method, or folders of such folders",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        help="the page to write (default: %(default)s)",
    )
    parser.add_argument("--metric", help="the quantity to compare (default: the one the results name)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Writes the report and prints its table and its path."""
    from innerloop.report import print_table, read_study, write_report

    study = read_study(options.folders, options.metric)
    files = write_report(study, options.output)
    print_table(study)
    print(f"report: {files.html} (numbers: {files.json.name}, {files.csv.name})")
