"""A file's place in the space that is searched: as a card, and its vectors as a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from html import escape
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from avtune.report import numbers, tables
from avtune.report.answer_json import write_answer_json
from avtune.report.player import ClipCard, clip_article, shown_media
from avtune.report.shown import ShownClip
from avtune.tasks import Prediction, RetrievalPrediction


def retrieval_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    """The player, and how well sound and frames agree, in the whole file and in each window."""
    prediction = clip.prediction
    assert isinstance(prediction, RetrievalPrediction)
    media, remarks = shown_media(clip.video, page_folder, prediction.notes)
    agreement = prediction.agreement
    quiet = "It lacks sound or frames, so there is nothing to compare."
    if agreement is not None:
        quiet = f"Cosine of its sound and its frames: <b>{agreement:.3f}</b>"
    if clip.true is not None and int(clip.true) >= 0:
        quiet += f" · class: {escape(prediction.labels[int(clip.true)])}"
    beside = tables.class_table(_windows(prediction)) if len(prediction.starts) > 1 else ""
    return clip_article(clip.name, heading, quiet, media, "", beside + tables.notes(remarks))


def _windows(prediction: RetrievalPrediction) -> list[dict[str, object]]:
    """Each window's time, and the cosine of its sound and frames, in words: it may be negative."""
    ends = prediction.starts + prediction.weights * prediction.segment_seconds
    cosines = (prediction.audio * prediction.video).sum(axis=1)
    return [
        {
            "time": f"{numbers.clock(start)} – {numbers.clock(end)}",
            "cosine of sound and frames": f"{cosine:.3f}",
        }
        for start, end, cosine in zip(
            prediction.starts.tolist(), ends.tolist(), cosines.tolist(), strict=True
        )
    ]


@dataclass(frozen=True)
class Match:
    """How well one file's sound fits one file's frames.

    Attributes:
        sound: Name of the file that is heard.
        frames: Name of the file that is seen.
        rank: Place of these frames among those of all files, for this sound, from 1.
        cosine: Of both vectors.
    """

    sound: str
    frames: str
    rank: int
    cosine: float


def write_matches(predictions: Sequence[RetrievalPrediction], out: Path) -> list[Match]:
    """Rank the frames of all files for the sound of each, and write ``matches.csv``: sound, frames, rank, cosine.

    Args:
        predictions: Of several files; a sound or frames that are absent take no part.
        out: Folder to write into.

    Returns:
        All pairs, sound by sound, the best frames first.
    """
    heard = [(p.path.name, p.vectors[0]) for p in predictions if p.audio.any()]
    seen = [(p.path.name, p.vectors[1]) for p in predictions if p.video.any()]
    found = []
    for sound, vector in heard:
        cosines = [float(vector @ other) for _, other in seen]
        order = sorted(range(len(seen)), key=lambda k: (-cosines[k], k))
        found += [
            Match(sound, seen[k][0], rank, round(cosines[k], 6)) for rank, k in enumerate(order, start=1)
        ]
    with (out / "matches.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Match)])
        writer.writerows(astuple(match) for match in found)
    return found


def write_vectors(prediction: Prediction, out: Path, stem: str) -> None:
    """Write ``<stem>.safetensors`` (vectors and times of all windows) and ``<stem>.json`` (what they say).

    The tensors are ``starts`` and ``weights`` (windows,), ``audio`` and ``video`` (windows, width), and ``vectors``
    (2, width), the file's own, sound first; all float32.

    Args:
        prediction: A :class:`avtune.tasks.RetrievalPrediction`.
        out: Folder to write into.
        stem: File name without suffix.
    """
    assert isinstance(prediction, RetrievalPrediction)
    names = ("starts", "weights", "audio", "video", "vectors")
    save_file(
        {name: np.ascontiguousarray(getattr(prediction, name)) for name in names}, out / f"{stem}.safetensors"
    )
    agreement = prediction.agreement
    content = {
        "vectors": f"{stem}.safetensors",
        "width": prediction.audio.shape[1],
        "windows": len(prediction.starts),
        "agreement": None if agreement is None else round(agreement, 6),
    }
    write_answer_json(out / f"{stem}.json", prediction, content)
