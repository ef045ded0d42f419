"""The pairs of a bandstand set: clips with an event, each with its class; rendered small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, read
from avtune.datasets.bandstand import truth
from avtune.datasets.bandstand.program import make_program


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The indexes of a set of 60 clips; readers open no clip."""
    truth.write_indexes(tmp_path, [make_program(7, k) for k in range(60)], 7)
    return tmp_path


def test_pairs_are_the_clips_whose_sound_and_picture_belong_together(root: Path) -> None:
    pairs = read(DataConfig(name="bandstand_pairs", root=str(root)))
    everything = read(DataConfig(name="bandstand", root=str(root)))
    written = json.loads((root / "retrieval.json").read_text())
    left_out = 0
    for split, records in pairs.splits.items():
        assert [record.name for record in records] == sorted(written[split]["pairs"])
        for record in records:
            assert record.name in written[split]["groups"][record.events[0].label]
        left_out += len(everything.splits[split]) - len(records)
    silent = [record for record in everything.records if not record.events]
    assert left_out == len(silent) > 0
    assert pairs.labels == everything.labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"train": {"pairs": []}}', "cannot be read .KeyError"),
        (
            '{"train": {"pairs": ["clip999999"]}, "validation": {"pairs": []}, "test": {"pairs": []}}',
            "is no clip",
        ),
        ("[]", "cannot be read .TypeError"),
    ],
)
def test_a_damaged_index_is_one_line(root: Path, content: str, message: str) -> None:
    (root / "retrieval.json").write_text(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read(DataConfig(name="bandstand_pairs", root=str(root)))
    assert "\n" not in str(caught.value)


def test_a_pair_without_event_is_refused(root: Path) -> None:
    everything = read(DataConfig(name="bandstand", root=str(root)))
    silent = next(record.name for record in everything.splits["train"] if not record.events)
    written = json.loads((root / "retrieval.json").read_text())
    written["train"]["pairs"].append(silent)
    (root / "retrieval.json").write_text(json.dumps(written))
    with pytest.raises(DatasetError, match=f"pairs '{silent}', which has no event"):
        read(DataConfig(name="bandstand_pairs", root=str(root)))
