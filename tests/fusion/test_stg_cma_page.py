"""The page on STG-CMA says what was counted and measured."""

import json
import re
from pathlib import Path

from test_stg_cma_counts import COUNTS

from avtune.fusion.stg_cma import RATIOS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/methods/stg_cma.md").read_text(encoding="utf-8")


def test_the_pages_counts_are_those_that_are_tested() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [(name, float(trained), float(total)) for name, trained, total in rows] == [
        (preset, trained, total) for preset, _, trained, total in COUNTS
    ]
    assert {name for name, _, _ in rows} == set(RATIOS)


def test_the_pages_measurements_are_the_recorded_ones() -> None:
    recorded = json.loads((ROOT / "benchmarks/results/stg_cma_block.json").read_text(encoding="utf-8"))[
        "blocks"
    ]
    rows = re.findall(r"^\| ([\w\- ]+ block) \| (\w+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert {(block, form): (float(mib), float(seconds)) for block, form, mib, seconds in rows} == {
        (block, form): (measured[form]["saved_mib"], measured[form]["cpu_seconds"])
        for block, measured in recorded.items()
        for form in ("frozen", "avtune", "straightforward")
    }
    swin = recorded["Swin-B stage 1 block"]["avtune_over_straightforward"]
    assert f"takes {swin['cpu_seconds']} of the time and {swin['saved_mib']} of the bytes" in PAGE
