"""How an answer to a question is shown: as a card with where the sound was looked for, and as a file."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from avtune.report import numbers, tables
from avtune.report.answer_json import write_answer_json
from avtune.report.player import ClipCard, clip_article, shown_media
from avtune.report.shown import ShownClip
from avtune.tasks import AnswerPrediction, Prediction

LISTED_ANSWERS = 8
MAP_SIDE = 160
MOST_MAPS = 60
HOT, TINT, DIMMED = np.array([255, 190, 40]), 0.55, 0.35


def answer_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    """The player, the answers with their probabilities, and each segment's frame with what was looked at."""
    prediction = clip.prediction
    assert isinstance(prediction, AnswerPrediction)
    media, remarks = shown_media(clip.video, page_folder, prediction.notes)
    beside = tables.notes(remarks)
    if prediction.labels:
        ranked = prediction.ranked[:LISTED_ANSWERS]
        best, share = ranked[0]
        quiet = f"{escape(prediction.question)} <b>{escape(best)}</b> {numbers.percent(share)}"
        if clip.true is not None:
            quiet += f" · true: {escape(_true(prediction, int(clip.true[0])))}"
        rows = [{"answer": label, "probability": share} for label, share in ranked]
        beside = tables.class_table(rows) + beside
    else:
        quiet = "This run learned where sounds come from; it answers no questions."
    return clip_article(clip.name, heading, quiet, media, _maps(prediction), beside)


def _true(prediction: AnswerPrediction, number: int) -> str:
    return prediction.labels[number] if number >= 0 else "an answer that no training question has"


def _maps(prediction: AnswerPrediction) -> str:
    """The first frames with their weights, and what the colours mean."""
    weights = prediction.grounding[:MOST_MAPS]
    low, high = float(weights.min()), float(weights.max())
    figures = []
    for t, (frame, part) in enumerate(zip(prediction.frames, weights, strict=False)):
        time = numbers.clock(t * prediction.segment_seconds)
        picture = heat_map(frame, (part - low) / (high - low) if high > low else np.zeros_like(part))
        figures.append(
            f'<figure style="margin:0"><img src="{_data_address(picture)}" width="{MAP_SIDE}" height="{MAP_SIDE}" '
            f'style="max-width:100%;height:auto;border-radius:4px" alt="Frame at {time} with what was looked at">'
            f'<figcaption class="quiet">{time}</figcaption></figure>'
        )
    cells = weights.shape[1] * weights.shape[2]
    left_out = len(prediction.grounding) - len(figures)
    more = f" The first {len(figures)} of {len(prediction.grounding)} segments are shown." if left_out else ""
    words = (
        f"Where the sound was looked for in each segment: from {low * cells:.2f} (dark) to {high * cells:.2f} (yellow) "
        f"times an even spread over {weights.shape[1]} × {weights.shape[2]} cells.{more}"
    )
    grid = f"grid-template-columns:repeat(auto-fill,minmax(min({MAP_SIDE}px,28vw),1fr))"
    return (
        f'<p class="quiet">{words}</p><div style="grid-column:1/-1;display:grid;gap:.6rem;{grid}">'
        f"{''.join(figures)}</div>"
    )


def heat_map(frame: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating]) -> Image.Image:
    """A frame under its heat, dark for none and yellow for the most.

    Args:
        frame: RGB (height, width, 3).
        heat: (rows, columns) in [0, 1].

    Returns:
        RGB, MAP_SIDE pixels a side.
    """
    side = (MAP_SIDE, MAP_SIDE)
    below = np.asarray(Image.fromarray(frame).resize(side, Image.Resampling.BICUBIC), dtype=np.float32)
    smooth = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize(side, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), 0, 1)[..., None]
    tint = TINT * strength**2
    mixed = (1 - tint) * (DIMMED + (1 - DIMMED) * strength) * below + tint * HOT
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _data_address(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def write_answer(prediction: Prediction, out: Path, stem: str) -> None:
    """``<stem>.json``: question, answers with probabilities, and the weights of each segment's cells."""
    assert isinstance(prediction, AnswerPrediction)
    rows = [{"answer": label, "probability": round(share, 6)} for label, share in prediction.ranked]
    content = {
        "question": prediction.question,
        "answers": rows,
        "segment_seconds": prediction.segment_seconds,
        "grounding": np.round(prediction.grounding.astype(np.float64), 6).tolist(),
    }
    write_answer_json(out / f"{stem}.json", prediction, content)
