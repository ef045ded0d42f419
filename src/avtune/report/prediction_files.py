"""What `avtune predict` leaves for a file: a page, and the answer as JSON and whatever else suits its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from avtune.report.answer_json import write_answer_json
from avtune.report.answers import write_answer
from avtune.report.cards import timeline_clip
from avtune.report.masks import write_masks
from avtune.report.page import write_prediction_page
from avtune.report.parsing import write_parsing
from avtune.report.retrieval import write_vectors
from avtune.report.shown import ShownClip
from avtune.report.timeline import write_prediction_csv, write_prediction_json
from avtune.tasks import (
    AnswerPrediction,
    ClassPrediction,
    MaskPrediction,
    ParsingPrediction,
    Prediction,
    RetrievalPrediction,
    TimelinePrediction,
)


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


WRITERS: dict[type[Prediction], Callable[[Prediction, Path, str], None]] = {
    TimelinePrediction: _write_timeline,
    ClassPrediction: _write_classes,
    ParsingPrediction: write_parsing,
    RetrievalPrediction: write_vectors,
    AnswerPrediction: write_answer,
    MaskPrediction: write_masks,
}
"""What each kind of prediction leaves beside its page."""
