"""The HTML pages: one file, nothing loaded from elsewhere, everything escaped, every number there."""

import base64
import hashlib
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtune.report import RunReport, TimelineClip, figures, tables, write_prediction_page, write_run_page

VOID = {"meta", "link", "br", "img", "input", "hr"}
LABELS = ("dog", "bell", "train", "background")
HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"><img src=http://example.org/x onerror='alert(1)'>",
    "<!--<script>",
    "a&lt;b & 'c' </style></title>",
)


class Page(HTMLParser):
    """Elements, texts and attributes of a document; a wrongly nested element fails the test."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.content: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == [], "elements are left open"

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), f"an attribute stands twice in <{tag}>"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.content.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        shown = {k: v for k, v in self.content.items() if k not in ("script", "style")}
        return " ".join(piece for pieces in shown.values() for piece in pieces)

    def shape(self):
        return [(tag, sorted(attributes), attributes.get("class")) for tag, attributes in self.elements]


def make_clip(labels=LABELS, segments=10, seed=0, **more) -> TimelineClip:
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(len(labels), 0.4), segments).astype(np.float32)
    predicted = shares.argmax(axis=1)
    true = np.where(draw.random(segments) < 0.3, draw.integers(0, len(labels), segments), predicted)
    return TimelineClip(more.pop("name", "clip 17"), 1.0, labels, shares, predicted, true, **more)


def make_report(labels=LABELS, text="plain", **more) -> RunReport:
    confusion = np.array([[40, 3, 0, 7], [2, 31, 5, 2], [0, 0, 17, 3], [9, 1, 4, 386]])
    values = {
        "title": text,
        "summary": {"Data": text, text + " fact": "LAVISH", "Epochs": 4, "Rate": 0.0003, "Frozen": True},
        "score": 0.7423,
        "score_name": text + " accuracy",
        "floors": {"majority": 0.41, "audio only": 0.5519, text + " floor": 0.507, "shuffled audio": 0.4808},
        "log": [
            {
                "event": "epoch",
                "epoch": e,
                "step": 9 * e,
                "loss": 2.0 / e,
                "validation": 0.2 * e,
                "lr": 1e-3 / e,
            }
            for e in range(1, 5)
        ],
        "parameters": {
            "trainable": 412_345,
            "frozen": 3_912_448,
            "total": 4_324_793,
            "by_part": {text + " adapters": 314_000, "head": 98_345},
        },
        "seconds": {"rendering": 24.2, text + " training": 108.7},
        "per_class": [
            {"label": label, "segments": int(row.sum()), "recall": float(row[k] / row.sum())}
            for k, (label, row) in enumerate(zip(labels, confusion, strict=True))
        ],
        "confusion": confusion,
        "labels": labels,
        "clips": [make_clip(labels, name=text, notes=(text + " note",))],
        "config_yaml": f"seed: 0 # {text}\n",
        "notes": (text + " was skipped",),
        **more,
    }
    return RunReport(**values)


def written(tmp_path, report=None, clip=None, **facts) -> tuple[str, Page]:
    path = tmp_path / "page.html"
    if clip is None:
        write_run_page(path, report or make_report())
    else:
        write_prediction_page(path, clip, facts)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize("kind", ["run", "prediction"])
def test_nothing_is_loaded_from_elsewhere(tmp_path, kind):
    text, page = written(tmp_path, clip=make_clip() if kind == "prediction" else None)
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form", "image", "use"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has the handler {name}"
            if name in {"src", "href", "poster", "srcset", "xlink:href", "action", "data"}:
                assert (value or "").startswith("data:"), f"{tag} {name} loads {value!r:.60}"
    style = "".join(page.content["style"])
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?:|//\w", text), "an address of the network stands in the page"
    for word in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "EventSource",
        "sendBeacon",
        "import(",
        "eval(",
        "innerHTML",
    ):
        assert word not in text


def test_policy_comes_first_and_allows_this_very_script_alone(tmp_path):
    text, page = written(tmp_path)
    metas = [a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(metas) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in metas[0]["content"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["media-src"] == "data: blob:"
    assert "connect-src" not in rules
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<link") < text.index("<style")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_change_no_element(tmp_path, hostile):
    safe_labels = (*tuple(f"label {k}" for k in range(3)), "background")
    bad_labels = (*tuple(f"{hostile} {k}" for k in range(3)), hostile)
    _, safe = written(tmp_path, make_report(safe_labels, "plain"))
    _, attacked = written(tmp_path, make_report(bad_labels, hostile))
    assert attacked.shape() == safe.shape()
    assert attacked.content["h1"] == [hostile]
    for label in bad_labels:
        assert label in attacked.text
    assert hostile in "".join(attacked.content["pre"])
    assert f"{hostile} was skipped" in attacked.text

    _, safe = written(tmp_path, clip=make_clip(safe_labels, name="n"), a="b")
    _, attacked = written(tmp_path, clip=make_clip(bad_labels, name=hostile), **{hostile: hostile})
    assert attacked.shape() == safe.shape()
    assert attacked.content["title"] == [hostile]
    assert attacked.content["dd"] == [hostile]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=4, max_size=4, unique=True))
def test_any_label_reaches_the_script_whole(tmp_path_factory, labels):
    clip = make_clip(tuple(labels))
    text, _ = written(tmp_path_factory.mktemp("page", numbered=True), clip=clip)
    data = re.search(r'<script type="application/json" class="data">(.*?)</script>', text, re.DOTALL)
    read = json.loads(data[1])
    assert read["labels"] == labels
    assert read["predicted"] == clip.predicted.tolist()
    assert read["true"] == clip.true.tolist()
    best = np.array(read["best"])
    assert (best[:, 0] == clip.predicted).all()
    assert np.allclose(np.array(read["bestShares"])[:, 0] / 1000, clip.probabilities.max(axis=1), atol=6e-4)
    assert read["certainty"] == np.array(read["bestShares"])[:, 0].tolist()


def test_every_number_of_a_run_is_there(tmp_path):
    _, page = written(tmp_path)
    shown = page.text
    for number in ("74.2%", "41.0%", "55.2%", "50.7%", "48.1%", "+19.0 points", "audio only"):
        assert number in shown, number
    for number in ("412.3k", "3.912M", "4.325M", "314.0k", "98.3k", "24.2 s", "1 min 49 s", "2 min 13 s"):
        assert number in shown, number
    assert "80.0%" in shown, "last validation score and the recall of dog"
    assert {"40", "31", "17", "386"} <= set(page.content["td"])
    widths = [a["style"] for tag, a in page.elements if tag == "i" and a.get("class") == "fill"]
    assert widths == ["width:74.23%", "width:41.00%", "width:55.19%", "width:50.70%", "width:48.08%"]


def test_blocks_cover_the_time_and_mark_the_wrong_segments(tmp_path):
    clip = make_clip(segments=20)
    text, page = written(tmp_path, clip=clip)

    def spans(part):
        found = re.findall(r'style="left:([\d.]+)%;width:([\d.]+)%"', part)
        return [(round(float(a) / 5), round((float(a) + float(b)) / 5)) for a, b in found]

    parts = re.split(r'<div class="row (\w+)">', text)
    rows = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name, values in (("true", clip.true), ("predicted", clip.predicted)):
        blocks = re.findall(r'left:([\d.]+)%;width:([\d.]+)%"><span>(\w+)<', rows[name])
        painted = []
        for _, width, label in blocks:
            painted += [LABELS.index(label)] * round(float(width) / 5)
        assert painted == values.tolist()
    marked = np.zeros(20, bool)
    for first, last in spans(rows["wrong"]):
        marked[first:last] = True
    assert marked.any()
    assert marked.tolist() == (clip.true != clip.predicted).tolist()
    slider = next(a for _, a in page.elements if a.get("role") == "slider")
    assert slider["aria-valuemax"] == "20"
    assert slider["tabindex"] == "0"
    assert slider["aria-label"]


def test_ribbons_stand_as_high_as_the_probability():
    clip = make_clip(segments=7)
    for label in range(3):
        root = ElementTree.fromstring(figures.ribbon(clip, label))
        assert root.get("viewBox") == "0 0 7 100"
        steps = re.findall(r"V([\d.]+)H(\d+)", root.find("path").get("d"))
        assert [int(end) for _, end in steps] == list(range(1, 8))
        heights = [(100 - float(top)) / 100 for top, _ in steps]
        assert np.allclose(heights, clip.probabilities[:, label], atol=1e-3)


def test_without_truth_there_is_no_true_row(tmp_path):
    known = make_clip()
    clip = TimelineClip("x", 1.0, LABELS, known.probabilities, known.predicted)
    text, _ = written(tmp_path, clip=clip)
    assert 'class="row true"' not in text
    assert 'class="row wrong"' not in text
    assert "segments right" not in text
    assert 'class="row predicted"' in text


def test_svg_is_well_formed_and_has_words(tmp_path):
    text, _ = written(tmp_path, make_report(text=HOSTILE[0]))
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) >= 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("aria-hidden") == "true" or root.get("aria-label")


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6).filter(lambda y: y == 0 or abs(y) > 1e-9)),
        min_size=1,
        max_size=30,
    )
)
def test_curves_stay_inside_their_frame(points):
    root = ElementTree.fromstring(figures.curve("loss", points, "epoch", as_percent=False))
    for pair in root.find("polyline").get("points").split():
        x, y = map(float, pair.split(","))
        assert 51.9 <= x <= 446.1
        assert 33.9 <= y <= 186.1
    lines = [float(line.get("y1")) for line in root.findall("line")]
    assert 2 <= len(lines) <= 8
    assert all(33.9 <= y <= 186.1 for y in lines)


def test_training_curves_pass_over_what_is_missing():
    log = [
        {"event": "start"},
        {"event": "epoch", "epoch": 1, "loss": 1.5, "validation": None},
        {"event": "epoch", "epoch": 2, "loss": float("nan"), "validation": 0.25},
        {"event": "epoch", "epoch": 3, "loss": 0.5, "validation": 0.75},
    ]
    root = ElementTree.fromstring(figures.training_curves(log))
    titles = [[t.text for t in svg.iter("title")] for svg in root]
    assert titles == [["epoch 1: 1.5", "epoch 3: 0.5"], ["epoch 2: 25.0%", "epoch 3: 75.0%"]]
    assert figures.training_curves([]) == ""
    steps = [{"epoch": 1, "step": s, "loss": 1 / (s + 1)} for s in range(5000)]
    drawn = figures.training_curves(steps)
    assert ">step</text>" in drawn
    assert len(re.search(r'points="([^"]*)"', drawn)[1].split()) == 400


def test_confusion_of_many_classes_lists_its_largest_errors():
    size = tables.MATRIX_CLASSES + 1
    confusion = np.diag(np.full(size, 50))
    confusion[3, 7], confusion[8, 2] = 30, 10
    labels = [f"class {k}" for k in range(size)]
    text = tables.confusion_table(confusion, labels)
    cells = Page(text).content
    assert cells["th"][4:] == ["class 3", "class 8"]
    assert cells["td"] == ["class 7", "30", "37.5%", "class 2", "10", "16.7%"]
    with pytest.raises(ValueError, match="confusion has shape"):
        tables.confusion_table(confusion, labels[1:])


def test_a_bare_report_still_makes_a_page(tmp_path):
    text, page = written(tmp_path, RunReport("t", {}, 0.5, "accuracy"))
    assert page.content["h1"] == ["t"]
    assert "50.0%" in page.text
    assert "<h2>" not in text
    empty = TimelineClip("empty", 1.0, LABELS, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert "no segment" in written(tmp_path, clip=empty)[1].text


@pytest.mark.parametrize("score", [-0.1, 1.2, float("nan"), 74.2])
def test_a_score_that_is_no_share_is_refused(score):
    with pytest.raises(ValueError, match="share between 0 and 1"):
        RunReport("t", {}, score, "accuracy")


def test_an_hour_of_segments_stays_small_and_quick(tmp_path):
    labels = (*(f"event {k}" for k in range(28)), "background")
    clip = make_clip(labels, segments=7200)
    started = time.process_time()
    text, page = written(tmp_path, clip=clip)
    assert time.process_time() - started < 20, "writing (and parsing) took too long"
    assert len(text) < 6_000_000
    assert text.count('class="timeline dense"') == 1
    assert len([1 for tag, a in page.elements if a.get("class") == "row probability"]) == 6


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_prediction_page(path, make_clip(name="old"))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_prediction_page(path, make_clip(name="new"))
    assert "old" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
