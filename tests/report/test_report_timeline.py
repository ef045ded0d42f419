"""A clip's timeline as data: events, top classes, JSON, CSV, PNG, written numbers, colours."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avtune.report import (
    TimelineClip,
    events,
    numbers,
    palette,
    prediction_json,
    timeline_png,
    write_prediction_csv,
    write_prediction_json,
)
from avtune.report.timeline import runs, top_classes

LABELS = ("dog", "bell", "train", "background")


def make_clip(predicted, true=None, labels=LABELS, segment_seconds=1.0, seed=0, **more):
    predicted = np.asarray(predicted, dtype=np.int64)
    raw = np.random.default_rng(seed).uniform(0.05, 1.0, (len(predicted), len(labels)))
    raw[np.arange(len(predicted)), predicted] += 1.0
    shares = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    known = None if true is None else np.asarray(true, dtype=np.int64)
    return TimelineClip("a clip", segment_seconds, labels, shares, predicted, known, **more)


def test_events_of_a_known_sequence():
    clip = make_clip([3, 0, 0, 1, 3, 1, 1, 1], segment_seconds=0.5)
    found = events(clip)
    assert [event[:3] for event in found] == [(0.5, 1.5, "dog"), (1.5, 2.0, "bell"), (2.5, 4.0, "bell")]
    assert found[0][3] == pytest.approx(clip.probabilities[1:3, 0].mean())
    assert events(make_clip([3, 3, 3])) == []
    assert events(make_clip([])) == []


@given(st.lists(st.integers(0, 3), max_size=40))
def test_events_paint_back_the_prediction(predicted):
    clip = make_clip(predicted, segment_seconds=0.25)
    painted = np.full(len(predicted), 3)
    found = events(clip)
    for start, end, label, _ in found:
        painted[round(start / 0.25) : round(end / 0.25)] = LABELS.index(label)
    assert painted.tolist() == predicted
    for one, two in itertools.pairwise(found):
        assert one[1] < two[0] or (one[1] == two[0] and one[2] != two[2]), (
            "neighbours of one label must be one"
        )


@given(st.lists(st.integers(0, 2), max_size=40))
def test_runs_are_maximal_and_cover_everything(values):
    found = runs(np.asarray(values, dtype=np.int64))
    assert [v for run in found for v in [run.value] * (run.last - run.first)] == values
    assert all(one.last == two.first and one.value != two.value for one, two in itertools.pairwise(found))


def test_top_classes_put_used_labels_first_and_never_background():
    clip = make_clip([1, 1, 0, 3, 3, 3, 3], true=[1, 1, 1, 3, 3, 3, 3])
    assert top_classes(clip) == [1, 0, 2]
    assert top_classes(clip, count=1) == [1]
    quiet = np.tile(np.float32([0.01, 0.01, 0.01, 0.97]), (3, 1))
    assert top_classes(TimelineClip("quiet", 1.0, LABELS, quiet, np.full(3, 3))) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment_seconds": 0.0}, "segment_seconds"),
        ({"segment_seconds": float("nan")}, "segment_seconds"),
        ({"probabilities": np.zeros((2, 3), np.float32)}, "probabilities have shape"),
        ({"probabilities": np.full((2, 4), np.nan, np.float32)}, "between 0 and 1"),
        ({"predicted": np.array([0, 4])}, "label index"),
        ({"true": np.array([-1, 0])}, "label index"),
        ({"true": np.array([0])}, "true has shape"),
    ],
)
def test_a_clip_refuses_what_does_not_fit(change, message):
    values = {
        "segment_seconds": 1.0,
        "probabilities": np.full((2, 4), 0.25, np.float32),
        "predicted": np.array([0, 1]),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        TimelineClip("x", labels=LABELS, **values)


# Lone surrogates have no UTF-8 form, and Python's csv reader stops at NUL.
label_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(st.lists(label_text, min_size=2, max_size=5, unique=True), st.integers(0, 2**31), st.booleans())
def test_json_and_csv_round_trip_any_label(tmp_path_factory, labels, seed, known):
    draw = np.random.default_rng(seed)
    predicted, true = draw.integers(0, len(labels), (2, 6))
    clip = make_clip(predicted, true if known else None, tuple(labels), seed=seed, notes=("a note",))
    folder = tmp_path_factory.mktemp("prediction", numbered=True)

    write_prediction_json(folder / "p.json", clip)
    read = json.loads((folder / "p.json").read_text(encoding="utf-8"))
    assert read == prediction_json(clip)
    assert [row["label"] for row in read["segments"]] == [labels[k] for k in predicted]
    assert np.allclose([row["probabilities"] for row in read["segments"]], clip.probabilities, atol=1e-6)
    assert ("true" in read["segments"][0]) == known
    assert len(read["events"]) == len(events(clip))
    assert read["background"] == labels[-1]

    write_prediction_csv(folder / "p.csv", clip)
    with (folder / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    leading = ["start", "end", "label", "probability"] + (["true"] if known else [])
    assert rows[0] == leading + [f"p({label})" for label in labels]
    assert [row[2] for row in rows[1:]] == [labels[k] for k in predicted]
    assert [(float(row[0]), float(row[1])) for row in rows[1:]] == [(t, t + 1.0) for t in range(6)]
    values = np.array([[float(p) for p in row[-len(labels) :]] for row in rows[1:]])
    assert np.allclose(values, clip.probabilities, atol=1e-6)
    if known:
        assert [row[4] for row in rows[1:]] == [labels[k] for k in true]


def test_json_names_the_file_without_its_folder(tmp_path):
    clip = make_clip([0], video=tmp_path / "secret folder" / "clip.mp4")
    text = json.dumps(prediction_json(clip))
    assert '"clip.mp4"' in text
    assert "secret folder" not in text


def test_accuracy_counts_background():
    assert make_clip([0, 3, 3, 1], true=[0, 3, 1, 3]).accuracy == 0.5
    assert make_clip([0]).accuracy is None
    assert make_clip([0]).wrong is None


def test_png_is_the_same_every_time_and_shows_the_labels_colours(tmp_path):
    clip = make_clip([3, 0, 0, 1, 1, 3], true=[3, 0, 0, 0, 1, 3])
    for name in ("one.png", "two.png"):
        timeline_png(tmp_path / name, clip)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    image = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
    for colour in (palette.LIGHT[0], palette.LIGHT[1], palette.BACKGROUND_LIGHT, "#b3261e"):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(image.astype(int) - wanted).max(axis=-1) <= 2).sum() > 200, colour


def test_png_takes_hostile_text_and_refuses_nothing_to_draw(tmp_path):
    # In matplotlib, "$" would start mathematics, and an unfinished formula would raise.
    labels = ("$\\frac{", "<b>\n\t", "x" * 300, "background")
    timeline_png(tmp_path / "t.png", make_clip([0, 1, 2, 3], labels=labels))
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 1000
    with pytest.raises(ValueError, match="no segment"):
        timeline_png(tmp_path / "none.png", make_clip([]))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.8734), "87.3%"),
        (numbers.percent(1.0), "100.0%"),
        (numbers.percent(float("nan")), "n/a"),
        (numbers.points(0.1904), "+19.0"),
        (numbers.points(-0.02), "\N{MINUS SIGN}2.0"),
        (numbers.count(999), "999"),
        (numbers.count(12_345), "12.3k"),
        (numbers.count(999_949), "999.9k"),
        (numbers.count(999_950), "1.000M"),
        (numbers.count(4_645_000), "4.645M"),
        (numbers.count(340_149_000), "340.1M"),
        (numbers.duration(8.25), "8.2 s"),
        (numbers.duration(59.96), "1 min 00 s"),
        (numbers.duration(125), "2 min 05 s"),
        (numbers.duration(3780), "1 h 03 min"),
        (numbers.duration(3599.7), "1 h 00 min"),
        (numbers.clock(7.5), "0:07.5"),
        (numbers.clock(3723), "1:02:03"),
        (numbers.clock(59.97), "1:00"),
    ],
)
def test_written_numbers(written, expected):
    assert written == expected


# Linear-light simulations at full severity, after Machado, Oliveira and Fernandes (2009).
SIMULATIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def cie_lab(colour: str, simulation) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(simulation) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (
        np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in to_xyz @ seen / [0.9505, 1.0, 1.089]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("simulation", SIMULATIONS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hues_stay_apart_for_every_kind_of_sight(theme, simulation):
    fills = {
        "light": (*palette.LIGHT, palette.BACKGROUND_LIGHT),
        "dark": (*palette.DARK, palette.BACKGROUND_DARK),
    }[theme]
    seen = [cie_lab(fill, SIMULATIONS[simulation]) for fill in fills]
    smallest = min(float(np.linalg.norm(one - two)) for one, two in itertools.combinations(seen, 2))
    # 2.3 is just noticeable; the least pair of the well-known Okabe-Ito set comes to 16.
    assert smallest > 20


@pytest.mark.parametrize("fill", palette.LIGHT + palette.DARK)
def test_text_in_blocks_has_enough_contrast(fill):
    assert palette.contrast(fill, palette.ink(fill)) >= 4.5
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
