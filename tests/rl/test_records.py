"""The record of an evaluation, and the figures that follow from it, against numbers worked out by hand."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from innerloop.core.errors import InputError
from innerloop.rl.records import (
    HINDSIGHT,
    RANDOM,
    RECORD_FILE,
    SCRATCH,
    read_evaluation,
    write_evaluation,
)
from rl.made_up import META, TUNED, level, made_up, without


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path / "deep" / "out", made_up())
    assert path == tmp_path / "deep" / "out" / RECORD_FILE
    assert read_evaluation(path) == read_evaluation(path.parent) == made_up()
    assert json.loads(path.read_text())["methods"][0]["training"]["way"] == "meta"


def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path) -> None:
    values = json.loads(write_evaluation(tmp_path, made_up()).read_text())
    file = tmp_path / RECORD_FILE
    for text in (
        file.read_text()[:-10],
        "[]",
        json.dumps({**values, "format": 2}),
        json.dumps({**values, "more": 1}),
        json.dumps({key: value for key, value in values.items() if key != "methods"}),
        json.dumps({**values, "methods": [{"name": "a"}]}),
    ):
        file.write_text(text)
        with pytest.raises(
            InputError, match=r"^the record .*evaluation\.json cannot be read \(.*evaluate again$"
        ):
            read_evaluation(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_evaluation(tmp_path / "none")


def test_curves_are_means_over_clusters_of_means_over_seeds() -> None:
    curve = made_up().curve(META)
    assert [interval.mean for interval in curve] == pytest.approx([-10, -6, -4])
    assert [interval.count for interval in curve] == [3, 3, 3]
    by_cluster = [-3.0, -4.0, -5.0]
    half = stats.t.ppf(0.975, 2) * stats.tstd(by_cluster) / math.sqrt(3)
    assert curve[2].half_width == pytest.approx(half)
    slow = made_up().violations(META)
    assert [interval.mean for interval in slow] == pytest.approx([0.10, 0.06, 0.04])


def test_a_baseline_is_level() -> None:
    assert [interval.mean for interval in made_up().curve("static")] == pytest.approx([-8, -8, -8])
    assert [interval.mean for interval in made_up().violations("static")] == pytest.approx([0.08] * 3)
    assert not made_up().method("static").adapts


def test_figures_of_a_policy() -> None:
    found = made_up().figures(META)
    # Mean height over 0..4: (8 + 3 · 5) / 4 = 23/4 below 0; above the beginning 10 − 23/4.
    assert found.speed.area == pytest.approx(10 - 23 / 4)
    assert found.speed.episodes == 4  # after 1 episode 4 of 6 gained
    assert found.transfer.jumpstart == pytest.approx(20)
    assert found.transfer.asymptotic_gain == pytest.approx(6)
    scratch = (25 + 3 * 15) / 4
    assert found.transfer.area_ratio == pytest.approx((scratch - 23 / 4) / (30 - scratch))
    assert found.accuracy == pytest.approx((44 - 4) / (44 - 4))
    assert found.speed_up is None  # scratch ends at -10
    tuned = made_up().figures(TUNED)
    assert tuned.accuracy == pytest.approx((44 - 6) / (44 - 4))
    assert made_up().figures(SCRATCH).speed_up == 1.0


def test_accuracy_needs_a_best_that_is_better_than_random() -> None:
    assert without(HINDSIGHT).figures(META).accuracy is None
    whole = made_up()
    worse = [level(HINDSIGHT, -40.0, -44.0, -48.0) if m.name == HINDSIGHT else m for m in whole.methods]
    assert replace(whole, methods=tuple(worse)).figures(META).accuracy is None


def test_meta_learned_policies_are_compared_with_all_others_by_cluster() -> None:
    found = made_up().comparisons()
    assert [(c.first, c.second) for c in found] == [
        (META, name) for name in (TUNED, SCRATCH, "static", RANDOM, HINDSIGHT)
    ]
    differences = {
        TUNED: [1.0, 2.0, 3.0],
        SCRATCH: [5.0, 6.0, 7.0],
        "static": [4.0, 4.0, 4.0],
        RANDOM: [37.0, 40.0, 43.0],
        HINDSIGHT: [0.0, 0.0, 0.0],
    }
    plain = {}
    for comparison in found:
        values = differences[comparison.second]
        assert comparison.difference.mean == pytest.approx(sum(values) / 3)
        sums = [
            abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=3)
        ]
        plain[comparison.second] = sum(total >= abs(sum(values)) - 1e-9 for total in sums) / 8
        assert comparison.test.p_value == pytest.approx(plain[comparison.second])
    assert plain[TUNED] == 0.25
    # Holm: the smallest times as many as there are, the next times one less; never falling, at most 1.
    ordered = sorted(plain.values())
    expected, highest = [], 0.0
    for place, p in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - place)))
        expected.append(highest)
    assert sorted(c.p_value for c in found) == pytest.approx(expected)


def test_without_a_meta_learned_policy_nothing_is_compared() -> None:
    assert without(META).comparisons() == []


def test_a_method_that_there_is_not_is_refused_with_the_list() -> None:
    with pytest.raises(
        InputError, match="holds no method 'maml'; it holds: fomaml, tuned <b>, scratch, static"
    ):
        made_up().method("maml")


def test_what_adapting_gained_is_paired_by_cluster() -> None:
    gain = made_up().figures(META).gain
    # By cluster 7, 6 and 5.
    assert gain.mean == pytest.approx(6.0)
    assert gain.half_width == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
