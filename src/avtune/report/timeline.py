"""What was predicted over one clip, segment by segment, and its plain forms: events, JSON, CSV."""

import csv
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TimelineClip:
    """A clip with its predicted, and where known its true, label in every segment.

    Segment ``t`` covers the seconds ``[t * segment_seconds, (t + 1) * segment_seconds)``.

    Attributes:
        name: What to call the clip, usually its file name.
        segment_seconds: Length of a segment, above 0.
        labels: The K label names; the last one is the background.
        probabilities: Probability of each label in each segment, shape (T, K), each in [0, 1].
        predicted: Index of the predicted label, shape (T,), each in [0, K).
        true: Index of the true label, shape (T,), each in [0, K); ``None`` where it is not known.
        video: The clip's media file; ``None`` leaves the timeline without a player.
        notes: Sentences about this clip that its reader should know (no audio, damaged packets).

    Raises:
        ValueError: An array has another shape, or a value outside its range.
    """

    name: str
    segment_seconds: float
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64] | None = None
    video: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        segments, classes = len(self.predicted), len(self.labels)
        if not self.segment_seconds > 0 or not np.isfinite(self.segment_seconds):
            raise ValueError(f"segment_seconds is {self.segment_seconds}; it must be above 0")
        if self.probabilities.shape != (segments, classes):
            raise ValueError(
                f"probabilities have shape {self.probabilities.shape}; expected {(segments, classes)}"
            )
        if not np.all((self.probabilities >= 0) & (self.probabilities <= 1.0001)):
            raise ValueError("probabilities must be finite and between 0 and 1")
        for what, indices in (("predicted", self.predicted), ("true", self.true)):
            if indices is None:
                continue
            if indices.shape != (segments,):
                raise ValueError(f"{what} has shape {indices.shape}; expected {(segments,)}")
            if segments and not (indices.min() >= 0 and indices.max() < classes):
                raise ValueError(f"{what} holds a label index outside 0..{classes - 1}")

    @property
    def background(self) -> int:
        """Index of the background label."""
        return len(self.labels) - 1

    @property
    def duration(self) -> float:
        """Seconds that the segments cover."""
        return len(self.predicted) * self.segment_seconds

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Where the prediction differs from the truth, shape (T,); ``None`` without a truth."""
        return None if self.true is None else self.predicted != self.true

    @property
    def accuracy(self) -> float | None:
        """Share of segments predicted correctly, background included; ``None`` without a truth."""
        return (
            None if self.true is None or not len(self.true) else float(np.mean(self.predicted == self.true))
        )


@dataclass(frozen=True)
class Run:
    """Neighbouring segments of one value: segments ``[first, last)``."""

    value: int
    first: int
    last: int


def runs(values: NDArray[np.int64] | NDArray[np.bool_]) -> list[Run]:
    """The longest runs of equal neighbours in `values`, shape (T,), in order."""
    found: list[Run] = []
    for value, group in groupby(values.tolist()):
        first = found[-1].last if found else 0
        found.append(Run(int(value), first, first + sum(1 for _ in group)))
    return found


def events(clip: TimelineClip) -> list[tuple[float, float, str, float]]:
    """The predicted events: (start, end, label, mean probability) of each run that is not background.

    Start and end are in seconds, [start, end); the probability is the mean over the run's segments of
    the probability of its own label.
    """
    return [
        (
            run.first * clip.segment_seconds,
            run.last * clip.segment_seconds,
            clip.labels[run.value],
            float(np.mean(clip.probabilities[run.first : run.last, run.value])),
        )
        for run in runs(clip.predicted)
        if run.value != clip.background
    ]


def top_classes(clip: TimelineClip, count: int = 6) -> list[int]:
    """The labels worth a row of their own under the timeline, at most `count`, background never.

    Labels that are true or predicted somewhere come first, those with more segments before those with
    fewer; the rest follow by their highest probability, and are left out where that stays below 5 %.
    """
    if not len(clip.predicted):
        return []
    uses = np.bincount(clip.predicted, minlength=len(clip.labels))
    if clip.true is not None:
        uses = uses + np.bincount(clip.true, minlength=len(clip.labels))
    peaks = clip.probabilities.max(axis=0)
    candidates = [k for k in range(clip.background) if uses[k] > 0 or peaks[k] >= 0.05]
    return sorted(candidates, key=lambda k: (-int(uses[k]), -float(peaks[k]), k))[:count]


def prediction_json(clip: TimelineClip) -> dict[str, object]:
    """The prediction as plain numbers, lists and strings, ready for ``json.dumps``.

    Times are in seconds; probabilities are rounded to six decimals; the media file is named by its file
    name alone, so that the result does not tell where on a disk it was made.
    """
    segments = []
    for t, index in enumerate(clip.predicted.tolist()):
        row: dict[str, object] = {
            "start": round(t * clip.segment_seconds, 6),
            "end": round((t + 1) * clip.segment_seconds, 6),
            "label": clip.labels[index],
            "probability": round(float(clip.probabilities[t, index]), 6),
            "probabilities": [round(float(p), 6) for p in clip.probabilities[t]],
        }
        if clip.true is not None:
            row["true"] = clip.labels[int(clip.true[t])]
        segments.append(row)
    return {
        "format": FORMAT_VERSION,
        "name": clip.name,
        "file": clip.video.name if clip.video is not None else None,
        "duration": round(clip.duration, 6),
        "segment_seconds": clip.segment_seconds,
        "labels": list(clip.labels),
        "background": clip.labels[clip.background],
        "events": [
            {"start": round(s, 6), "end": round(e, 6), "label": label, "probability": round(p, 6)}
            for s, e, label, p in events(clip)
        ],
        "segments": segments,
        "notes": list(clip.notes),
    }


def write_prediction_json(path: str | Path, clip: TimelineClip) -> None:
    """Write :func:`prediction_json` to `path`, UTF-8, one line per top-level value's item."""
    text = json.dumps(prediction_json(clip), ensure_ascii=False, indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def write_prediction_csv(path: str | Path, clip: TimelineClip) -> None:
    """Write one line per segment: start, end, label, probability, true (where known), then each label's.

    The columns of the K probabilities are named ``p(<label>)``. Quoting follows RFC 4180, so labels with
    commas, quotes or line breaks come back whole.
    """
    known = clip.true is not None
    header = ["start", "end", "label", "probability", *(["true"] if known else [])]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header + [f"p({label})" for label in clip.labels])
        for t, index in enumerate(clip.predicted.tolist()):
            row = [f"{t * clip.segment_seconds:.6g}", f"{(t + 1) * clip.segment_seconds:.6g}"]
            row += [clip.labels[index], f"{clip.probabilities[t, index]:.6f}"]
            if clip.true is not None:
                row.append(clip.labels[int(clip.true[t])])
            writer.writerow(row + [f"{p:.6f}" for p in clip.probabilities[t]])
