"""The table in a terminal, and numbers as they are written."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from innerloop.core.stats import Interval
from innerloop.report import formatting, print_table, read_study, summary_table
from innerloop.report.formatting import NBSP, MetricFormat
from report.synthetic import realistic_evaluations, simple_scores, write_evaluation


def printed(folders: list[Path], width: int = 80) -> str:
    out = io.StringIO()
    print_table(read_study(folders), Console(file=out, width=width))
    return out.getvalue()


def test_the_table_fits_eighty_columns_whole(tmp_path: Path) -> None:
    text = printed(realistic_evaluations(tmp_path))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    row = next(line for line in text.splitlines() if "+29.8" in line)
    assert row.replace(NBSP, " ").split() == [
        "META-LORA", "24.8", "52.8", "68.2", "79.8", "85.6", "+29.8", "<", "0.001",
    ]  # fmt: skip
    assert "META-LORA (FOMAML) beats LoRA-SFT at equal cost, by 29.8 points." in text


def test_the_table_has_a_row_a_method_and_a_column_a_budget(tmp_path: Path) -> None:
    table = summary_table(read_study(realistic_evaluations(tmp_path)))
    assert table.row_count == 5
    assert [str(column.header) for column in table.columns] == [
        "method", "0", "1", "2", "4", "8", "gain over LoRA-SFT", "p",
    ]  # fmt: skip


def test_one_method_needs_no_gain_column(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", simple_scores(lambda t, b: 0.5, tasks=1))
    text = printed([folder])
    assert "gain" not in text
    assert "Only META was given" in text


def test_markup_in_a_label_is_text(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", simple_scores(lambda t, b: 0.5), label="[red]x[/red]")
    assert "[red]x[/red]" in printed([folder])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.p_value(0.0004), "p < 0.001"),
        (formatting.p_value(0.0123), "p = 0.012"),
        (formatting.bare_p(0.34), "0.34"),
        (formatting.bare_p(math.nan), "–"),
        (formatting.count(None), "–"),
        (formatting.count(0), "0"),
        (formatting.count(12.5), "12.5"),
        (formatting.count(19200), "19 200"),
        (formatting.count(4_819_200), "4.82 M"),
        (formatting.size(512), "512 B"),
        (formatting.size(1_843_200), "1.84 MB"),
        (formatting.duration(0.4231), "0.42 s"),
        (formatting.duration(59.7), "1 min 00 s"),
        (formatting.duration(200), "3 min 20 s"),
        (formatting.duration(7500), "2 h 05 min"),
        (formatting.ratio(1.0), "1.00×"),
        (formatting.ratio(123.4), "123×"),
        (formatting.ratio(None), "–"),
        (formatting.budgets((1,), "shots"), "1 shot"),
        (formatting.budgets((1,), "shots per class"), "1 shot per class"),
        (formatting.budgets((8,), "shots per class"), "8 shots per class"),
        (formatting.budgets((1, 2, 4), "shots"), "1, 2 and 4 shots"),
        (MetricFormat(True, 1).value(0.8912), "89.1 %"),
        (MetricFormat(True, 1).change(-0.0001), "0.0"),
        (MetricFormat(True, 1).change(-0.012), "−1.2"),
        (MetricFormat(True, 1).amount(-0.012), "1.2 points"),
        (MetricFormat(False, 3).amount(0.3), "0.300"),
        (MetricFormat(True, 1).span(Interval(0.5, 0.4, 0.6, 3, 0.95)), "40.0 to 60.0"),
        (MetricFormat(True, 1).span(Interval(0.5, -math.inf, math.inf, 1, 0.95)), "–"),
    ],
)
def test_numbers_are_written_for_readers(written: str, expected: str) -> None:
    assert written.replace(NBSP, " ") == expected


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("accuracy", 0.5, MetricFormat(True, 1)),
        ("accuracy", 50.0, MetricFormat(False, 2)),
        ("loss", 1.5, MetricFormat(False, 3)),
        ("return", -1234.0, MetricFormat(False, 0)),
        ("loss", 0.0, MetricFormat(False, 3)),
    ],
)
def test_the_metric_decides_how_it_is_written(
    tmp_path: Path, metric: str, value: float, expected: MetricFormat
) -> None:
    folder = write_evaluation(tmp_path / "a", {"t": {1: [value]}}, metric=metric)
    assert formatting.metric_format(read_study([folder], metric)) == expected
