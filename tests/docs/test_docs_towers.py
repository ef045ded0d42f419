"""The page on towers states what the code has."""

import re

import pytest
from docs_pages import ROOT

from avtune.backbones import create_tower, unused_head_parameters
from avtune.backbones.ast import AST_VARIANTS
from avtune.transforms import AUDIO_PRESETS
from avtune.transforms.front_ends import FRONT_ENDS

PAGE = (ROOT / "docs" / "towers.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"
]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_preset_stands_in_the_row_of_its_front_end():
    rows = {names(row[0])[0]: row for row in ROWS if names(row[0]) and names(row[0])[0] in FRONT_ENDS}
    assert set(rows) == set(FRONT_ENDS)
    for front_end, row in rows.items():
        stated = set(names(row[2]))
        assert stated == {name for name, preset in AUDIO_PRESETS.items() if preset.front_end == front_end}
        rates = {AUDIO_PRESETS[name].sample_rate for name in stated}
        assert all(f"{rate / 1000:g}" in row[1] for rate in rates)


@pytest.mark.parametrize("name", ["ast", "htsat"])
def test_sizes_of_the_towers_for_sound(name):
    (row,) = [row for row in ROWS if names(row[0])[:1] == [name] and len(row) == 6]
    tower = create_tower(name, device="meta")
    assert row[1] == f"{sum(parameter.numel() for parameter in tower.parameters()) / 1e6:.3f}"
    assert row[2] == str(tower.channels)
    assert {int(number) for number in re.findall(r"\d+", row[3])} == set(tower.picture_size)
    lengths = dict.fromkeys(tower.lengths(*tower.picture_size))
    assert row[4] == ", ".join(map(str, lengths))
    assert row[5] == f"{unused_head_parameters(name) / 1e6:.3f} left out"


def test_every_name_of_an_ast_is_there():
    assert set(AST_VARIANTS) <= {name for line in PAGE.splitlines() for name in names(line)}
