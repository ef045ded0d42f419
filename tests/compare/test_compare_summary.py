"""Means, intervals, verdicts; the table and the plot."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avtune.compare import (
    Cost,
    RunResult,
    as_json,
    comparison_png,
    from_json,
    interval,
    markdown,
    summarise,
)
from avtune.compare.summary import HEADINGS

RUN = RunResult("a", 0, 0.003, 0.5, 0.6, 0.4, "segment accuracy", 1000, 400, 9.0, 20, 0, "abc")
COST = Cost(saved_mib=3.0, peak_mib=120.0, seconds_per_step=0.05)


def runs(variant: str, scores: list[float], **changes: object) -> list[RunResult]:
    return [replace(RUN, variant=variant, seed=k, test=score, **changes) for k, score in enumerate(scores)]


def test_the_interval_is_students():
    # 2.776 is the two-sided 95 % quantile of Student's t with four degrees of freedom.
    found = interval([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found.mean == pytest.approx(0.3)
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(0.025) / math.sqrt(5), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((0.3 - found.half_width, 0.3 + found.half_width))
    assert interval([0.7]).half_width is None
    assert interval([0.7]).low == interval([0.7]).high == 0.7


@given(st.integers(0, 2**32 - 1))
def test_the_interval_covers_the_truth_as_often_as_it_says(seed):
    samples = np.random.default_rng(seed).normal(0.5, 0.1, (400, 5))
    covered = sum(found.low <= 0.5 <= found.high for found in map(interval, samples.tolist()))
    # 380 are expected, with a standard deviation of 4.4.
    assert 350 <= covered <= 400


def test_gains_are_paired_by_seed():
    # The seeds differ far more than the variants: only the pairing shows the gain.
    base = [0.2, 0.4, 0.6, 0.8]
    results = runs("base", base) + runs(
        "up", [s + g for s, g in zip(base, (0.04, 0.05, 0.05, 0.06), strict=True)]
    )
    results += runs("down", [s - 0.02 - 0.001 * k for k, s in enumerate(base)])
    results += runs("same", [0.25, 0.35, 0.65, 0.75])
    rows = {row.variant: row for row in summarise(results, "base")}
    assert [row.variant for row in summarise(results, "base")] == ["up", "base", "same", "down"]
    assert {name: row.verdict for name, row in rows.items()} == {
        "up": "better", "base": "reference", "same": "not told apart", "down": "worse"
    }  # fmt: skip
    assert rows["up"].gain.mean == pytest.approx(0.05)
    assert rows["base"].gain is None
    assert all(row.verdict == "" and row.gain is None for row in summarise(results))


def test_one_seed_gives_no_verdict():
    rows = summarise(runs("a", [0.5]) + runs("b", [0.9]), "a")
    assert [row.verdict for row in rows] == ["one seed only", "reference"]


def test_rows_hold_the_methods_weights_and_what_was_measured():
    (row,) = summarise(runs("a", [0.5, 0.6]), searches={"a": {0.003: 0.5, 0.01: 0.4}}, costs={"a": COST})
    assert (row.cost, row.method, row.trainable) == (COST, 600, 1000)
    assert row.rates == {0.003: 0.5, 0.01: 0.4}
    assert summarise(runs("a", [0.5]), costs={"b": COST})[0].cost is None


def test_json_gives_the_rows_back():
    rows = summarise(runs("a", [0.5, 0.6]) + runs("b | c", [0.9]), "a", {"a": {0.1: 0.2}}, {"a": COST})
    content = as_json(rows, commit="abc")
    assert content["commit"] == "abc"
    assert from_json(json.loads(json.dumps(content))) == rows


def test_the_table_has_a_cell_for_every_heading():
    costs = {"a": COST}
    text = markdown(summarise(runs("a", [0.5, 0.6]) + runs("b", [0.9, 0.7]), "a", costs=costs))
    lines = text.splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(HEADINGS) + 1}
    assert "not told apart" in lines[2]
    assert "55.0 ± 63.5" in lines[3]
    assert "| 3 | 120 | 50 |" in lines[3]
    assert "|  |  |  |" in lines[2]


def test_the_plot_is_the_same_each_time_and_grows_with_the_rows(tmp_path):
    rows = summarise(runs("a $x_1$", [0.5, 0.6], head=1000) + runs("b", [0.9]), "b")
    for name in ("one", "two"):
        comparison_png(tmp_path / f"{name}.png", rows, score="accuracy", floors={"majority": 0.4})
    comparison_png(tmp_path / "many.png", rows * 8, score="accuracy")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    small, large = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "many.png")
    assert large.height > 2 * small.height
    assert len(np.unique(np.asarray(small.convert("L")))) > 20
    with pytest.raises(ValueError, match="no row"):
        comparison_png(tmp_path / "none.png", [], score="accuracy")
