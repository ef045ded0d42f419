"""The page on STG-CMA says what was counted."""

import re
from pathlib import Path

from test_stg_cma_counts import COUNTS

from avtune.fusion.stg_cma import RATIOS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/methods/stg_cma.md").read_text(encoding="utf-8")


def test_the_pages_counts_are_those_that_are_tested() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [(name, float(trained), float(total)) for name, trained, total in rows] == [
        (name, *weights) for name, weights in COUNTS.items()
    ]
    assert {name for name, _, _ in rows} == set(RATIOS)
