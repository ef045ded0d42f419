"""What `avtune predict` leaves for a file: a page, and the answer as JSON and whatever else suits its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from avtune.report.cards import ShownClip, timeline_clip
from avtune.report.page import write_prediction_page
from avtune.report.timeline import FORMAT_VERSION, write_prediction_csv, write_prediction_json
from avtune.tasks import ClassPrediction, Prediction, TimelinePrediction


def write_prediction(prediction: Prediction, out: Path, stem: str, model_facts: Mapping[str, object]) -> Path:
    """Write a prediction's page and files.

    Args:
        prediction: The answer.
        out: Folder to write into.
        stem: File name without suffix.
        model_facts: What predicted it, name to value, for the page.

    Returns:
        The page, ``<stem>.html``.
    """
    page = out / f"{stem}.html"
    WRITERS[type(prediction)](prediction, out, stem)
    write_prediction_page(page, ShownClip(prediction.path.name, prediction, prediction.path), model_facts)
    return page


def _write_timeline(prediction: Prediction, out: Path, stem: str) -> None:
    clip = timeline_clip(ShownClip(prediction.path.name, prediction, prediction.path))
    write_prediction_json(out / f"{stem}.json", clip)
    write_prediction_csv(out / f"{stem}.csv", clip)


def _write_classes(prediction: Prediction, out: Path, stem: str) -> None:
    assert isinstance(prediction, ClassPrediction)
    rows = [{"label": label, "probability": round(share, 6)} for label, share in prediction.ranked]
    write_answer_json(
        out / f"{stem}.json", prediction, {"multi_label": prediction.multi_label, "classes": rows}
    )


def write_answer_json(path: Path, prediction: Prediction, content: Mapping[str, object]) -> None:
    """Write a prediction's own content between what every prediction's file holds."""
    whole = {
        "format": FORMAT_VERSION, "file": prediction.path.name, **content, "notes": list(prediction.notes)
    }  # fmt: skip
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


WRITERS: dict[type[Prediction], Callable[[Prediction, Path, str], None]] = {
    TimelinePrediction: _write_timeline,
    ClassPrediction: _write_classes,
}
"""What each kind of prediction leaves beside its page."""
