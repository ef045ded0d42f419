"""A parsed clip on a page and as files."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from avtune.report import ShownClip, write_prediction
from avtune.report.cards import prediction_card
from avtune.tasks import ParsingPrediction

LABELS = ("bell", "a <b>drum</b>", "horn")


def prediction(notes: tuple[str, ...] = ()) -> ParsingPrediction:
    shares = np.full((4, 2, 3), 0.1, np.float32)
    shares[1:3, 0, 0] = 0.9
    shares[3, 0, 0] = 0.6
    shares[:, 1, 1] = 0.7
    shares[:, :, 2] = 0.8
    clip = np.full((4, 3), 0.9, np.float32)
    clip[:, 2] = 0.2  # gates the horn
    return ParsingPrediction(Path("street.mp4"), LABELS, 0.5, shares, clip, notes=notes)


class Elements(HTMLParser):
    """Start tags with their classes, and the text of the data element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.data = ""
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found.append((tag, values.get("class") or "", values.get("style") or ""))
        self.inside = tag == "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.data += data
            self.inside = False

    def styles(self, name: str) -> list[str]:
        return [style for _, look, style in self.found if name in look.split()]


def test_two_bands_with_the_truth_above_what_is_answered(tmp_path: Path) -> None:
    true = np.zeros((4, 2, 3), np.uint8)
    true[0:2, 0, 0] = 1
    true[2:, 1, 2] = 1
    card = prediction_card(
        ShownClip("street", prediction(("no sound after 1 s",)), None, true), tmp_path, "h3"
    )
    page = Elements(card.html)
    assert [look for _, look, _ in page.found if look.startswith("name ")] == [
        "name ruler-name", "name band", "name class", "name band", "name class", "name class"
    ]  # fmt: skip
    assert page.styles("truth") == ["left:0.0000%;width:50.0000%", "left:50.0000%;width:50.0000%"]
    assert page.styles("block") == ["left:25.0000%;width:75.0000%", "left:0.0000%;width:100.0000%"]
    assert "<b>drum" not in card.html
    assert "no sound after 1 s" in card.html
    assert "Type@AV" in card.html
    data = json.loads(page.data)
    words = [data["labels"][k] for k in data["predicted"]]
    assert words[0] == "heard: nothing; seen: a <b>drum</b>"
    assert words[1] == "heard: bell; seen: a <b>drum</b>"
    assert data["labels"][data["true"][0]] == "heard: bell; seen: nothing"
    assert data["rows"] == [[100, 900, 900, 600], [700] * 4, [800] * 4]
    assert data["step"] == 0.5


def test_without_truth_only_the_answer_is_shown_and_a_longer_truth_is_cut(tmp_path: Path) -> None:
    card = prediction_card(ShownClip("street", prediction()), tmp_path, "")
    page = Elements(card.html)
    assert not page.styles("truth")
    assert json.loads(page.data)["true"] is None
    long = prediction_card(
        ShownClip("street", prediction(), None, np.ones((9, 2, 3), np.uint8)), tmp_path, ""
    )
    assert len(json.loads(Elements(long.html).data)["true"]) == 4


def test_nothing_heard_and_seen_is_said(tmp_path: Path) -> None:
    nothing = np.zeros((2, 2, 3), np.float32)
    empty = ParsingPrediction(Path("a.mp4"), LABELS, 1.0, nothing, nothing[:, 0])
    html = prediction_card(ShownClip("a", empty), tmp_path, "").html
    assert "Nothing is heard and nothing is seen." in html


def test_the_files_hold_events_and_all_probabilities(tmp_path: Path) -> None:
    page = write_prediction(prediction(("padded",)), tmp_path, "street", {"Run": "runs/x"})
    assert page.read_text().count("Type@AV") == 0
    content = json.loads((tmp_path / "street.json").read_text())
    assert content["heard"] == [
        {"label": "bell", "start": 0.5, "end": 2.0, "probability": pytest.approx(0.8, abs=1e-6)}
    ]
    assert content["seen"][0]["label"] == LABELS[1]
    assert content["notes"] == ["padded"]
    assert content["file"] == "street.mp4"
    assert content["probabilities"]["heard"][1] == pytest.approx([0.9, 0.1, 0.8], abs=1e-6)
    assert content["probabilities"]["clip"][0] == pytest.approx([0.9, 0.9, 0.2], abs=1e-6)
    with (tmp_path / "street.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stream"], row["label"], row["start"], row["end"]) for row in rows] == [
        ("heard", "bell", "0.5", "2.0"), ("seen", LABELS[1], "0.0", "2.0")
    ]  # fmt: skip
