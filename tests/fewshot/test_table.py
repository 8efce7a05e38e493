"""The table in the documentation is made of the recorded runs, and of nothing else."""

from pathlib import Path

from innerloop.fewshot.records import read_records
from innerloop.fewshot.table import BEGIN, END, markdown

ROOT = Path(__file__).parents[2]


def test_the_documented_table_is_that_of_the_records() -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = document.split(BEGIN)[1].split(END)[0]
    assert shown == f"\n{markdown(read_records(ROOT / 'benchmarks' / 'omniglot'))}", (
        "run: innerloop fewshot bench --output-dir benchmarks/omniglot --document docs/benchmarks.md"
    )
