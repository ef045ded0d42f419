"""The HTML of one predicted clip: its player and the answer, one function for each kind of prediction."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

from avtune.report import numbers, tables
from avtune.report.answers import answer_card
from avtune.report.masks import mask_card
from avtune.report.parsing import parsing_card
from avtune.report.player import ClipCard, clip_article, clip_card, shown_media
from avtune.report.retrieval import retrieval_card
from avtune.report.shown import ShownClip
from avtune.report.timeline import TimelineClip
from avtune.tasks import (
    AnswerPrediction,
    ClassPrediction,
    MaskPrediction,
    ParsingPrediction,
    Prediction,
    RetrievalPrediction,
    TimelinePrediction,
)

LISTED_CLASSES = 8


def prediction_card(clip: ShownClip | TimelineClip, page_folder: Path, heading: str) -> ClipCard:
    """The card of `clip` for a page in `page_folder`; `heading` is the tag of its title, "" for none."""
    if isinstance(clip, TimelineClip):
        return clip_card(clip, page_folder, heading)
    return CARDS[type(clip.prediction)](clip, page_folder, heading)


def timeline_clip(clip: ShownClip) -> TimelineClip:
    """A localized clip with its truth, which may be shorter or longer than what was predicted."""
    prediction = clip.prediction
    assert isinstance(prediction, TimelinePrediction)
    length = len(prediction.classes) if clip.true is None else min(len(clip.true), len(prediction.classes))
    return TimelineClip(
        name=clip.name,
        segment_seconds=prediction.segment_seconds,
        labels=prediction.labels,
        probabilities=prediction.probabilities[:length],
        predicted=prediction.classes[:length],
        true=None if clip.true is None else clip.true[:length],
        video=clip.video,
        notes=prediction.notes,
    )


def _timeline_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    return clip_card(timeline_clip(clip), page_folder, heading)


def _class_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    prediction = clip.prediction
    assert isinstance(prediction, ClassPrediction)
    media, remarks = shown_media(clip.video, page_folder, prediction.notes)
    ranked = prediction.ranked[:LISTED_CLASSES]
    best, share = ranked[0]
    quiet = f"<b>{escape(best)}</b> {numbers.percent(share)}"
    if clip.true is not None:
        true = [
            prediction.labels[k]
            for k in (clip.true.nonzero()[0] if prediction.multi_label else [int(clip.true)])
        ]
        quiet += f" · true: {escape(', '.join(true) or 'none of the labels')}"
    table = tables.class_table([{"label": label, "probability": share} for label, share in ranked])
    return clip_article(clip.name, heading, quiet, media, "", table + tables.notes(remarks))


CARDS: dict[type[Prediction], Callable[[ShownClip, Path, str], ClipCard]] = {
    TimelinePrediction: _timeline_card,
    ClassPrediction: _class_card,
    ParsingPrediction: parsing_card,
    RetrievalPrediction: retrieval_card,
    AnswerPrediction: answer_card,
    MaskPrediction: mask_card,
}
"""How each kind of prediction is shown."""
