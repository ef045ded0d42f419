"""Audio-visual video parsing: which events are heard, which are seen, and in which seconds (LLP)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.datasets.presence import presence
from avtune.encoder import Encoded
from avtune.heads.parsing import PRESETS, ParsingHead
from avtune.heads.segments import full_precision
from avtune.metrics.parsing import ParsingScores, event_scores, runs, segment_scores
from avtune.options import chosen
from avtune.tasks.base import Answer, Loss, Rows, Scores, Task, Truth
from avtune.tasks.predictions import Floats, Prediction, TimelineEvent, Window, segment_means, window_notes
from avtune.transforms import Batch

Booleans = npt.NDArray[np.bool_]

HEARD, SEEN, CLIP = 0, 1, 2
"""Places of the answers along the third axis of the outputs."""
THRESHOLD = 0.5
LEVELS = ("segment", "event")


@dataclass(frozen=True)
class ParsingPrediction(Prediction):
    """Which events are heard and which are seen in each segment.

    Attributes:
        probabilities: (segments, 2, classes), heard and seen, each standing alone; segments cover the file from 0 on.
        clip_probabilities: (segments, classes), that the event is in the clip at all, as the windows around each
            segment answer it.
    """

    probabilities: Floats
    clip_probabilities: Floats

    @property
    def present(self) -> Booleans:
        """What is answered, (segments, 2, classes): as LLP, both probabilities have to be at least one half."""
        found: Booleans = self.probabilities >= THRESHOLD
        return found & (self.clip_probabilities[:, None] >= THRESHOLD)

    @property
    def heard(self) -> list[TimelineEvent]:
        """Runs of segments in which an event is heard, by beginning, then label."""
        return self._events(HEARD)

    @property
    def seen(self) -> list[TimelineEvent]:
        """Runs of segments in which an event is seen, by beginning, then label."""
        return self._events(SEEN)

    def _events(self, stream: int) -> list[TimelineEvent]:
        seconds, present = self.segment_seconds, self.present[:, stream]
        events = [
            TimelineEvent(
                first * seconds, end * seconds, label, float(self.probabilities[first:end, stream, k].mean())
            )
            for k, label in enumerate(self.labels)
            for first, end in runs(present[:, k])
        ]
        return sorted(events, key=lambda event: (event.start, self.labels.index(event.label)))


class ParsingTask(Task):
    """What is heard and what is seen in each segment, any number of labels at once.

    The score is LLP's Type@AV on segments: F of what is heard, of what is seen and of what is both in the same second,
    each computed in every clip and averaged over clips, and the mean of the three.

    Args:
        labels: Names of the classes.
        input: Segments per clip and their length.
        head: ``preset`` and ``options`` are those of :class:`avtune.heads.parsing.ParsingSettings`.
        words: Not read.

    Raises:
        avtune.options.OptionError: There is no such preset or option.
    """

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.settings = chosen("parsing", PRESETS, head.preset, head.options)
        # Told the labels of whole clips alone, a crop must not tell what is in the crop.
        self.target_per_segment = self.settings.supervision == "segments"

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """:class:`avtune.heads.parsing.ParsingHead`."""
        return ParsingHead(audio_tower.dim, video_tower.dim, len(self.labels), self.settings)

    def target(self, record: Record) -> Tensor:
        """What is heard and what is seen, (T, 2, classes) uint8.

        Where the dataset tells neither, each of the clip's labels counts as both in every segment: all that it tells
        is which labels the clip has.
        """
        told = (record.heard, record.seen) if record.heard or record.seen else (record.events,) * 2
        segments, seconds = self.input.segments, self.input.segment_seconds
        streams = [presence(events, self.labels, segments, seconds, record.start) for events in told]
        return torch.from_numpy(np.stack(streams, axis=1).astype(np.uint8))

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Binary cross-entropy, a mean over classes, of the clip and of each stream that it has.

        Under ``supervision: clips`` a stream is answered as a whole and is told all labels of the clip, smoothed;
        under ``segments`` each of its segments is told what is heard or seen in it.
        """
        assert batch.target is not None
        counted = batch.valid.any(dim=1)
        here = torch.stack([batch.has_audio, batch.has_video], dim=1)[counted]
        with full_precision(outputs):
            if self.settings.supervision == "segments":
                valid = batch.valid[counted, :, None, None]
                target = batch.target[counted].float() * valid
                labels = target.amax(dim=(1, 2))
                each = _binary(outputs[counted, :, :CLIP], target) * valid.squeeze(-1)
                streams = each.sum(dim=1) / valid.sum(dim=1).squeeze(-1)
            else:
                labels = batch.target[counted].float().amax(dim=(1, 2))
                smoothing = labels.new_tensor([self.settings.audio_smoothing, self.settings.video_smoothing])
                smoothed = labels[:, None] + smoothing[:, None] * (0.5 - labels[:, None])
                streams = _binary(encoded.notes.records["stream_clip_logits"][-1][counted], smoothed)
            total = _binary(outputs[counted, 0, CLIP], labels).sum() + (streams * here).sum()
        return Loss(total, int(counted.sum()))

    def tally(self, outputs: Tensor, batch: Batch) -> Rows:
        """Each clip's F scores, and how many of its seconds are right, wrong and missing for each stream and class."""
        assert batch.target is not None
        found = ((outputs[:, :, :CLIP] >= 0) & (outputs[:, :, CLIP:] >= 0)).cpu().numpy()
        true, valid = batch.target.bool().cpu().numpy(), batch.valid.cpu().numpy()
        segment, event, seconds = [], [], []
        for answer, truth, exists in zip(found, true, valid, strict=True):
            guess, real = answer[exists].transpose(1, 2, 0), truth[exists].transpose(1, 2, 0)
            segment.append(_row(segment_scores(*guess, *real)))
            event.append(_row(event_scores(*guess, *real)))
            seconds.append(np.stack([part.sum(-1) for part in (guess & real, guess & ~real, ~guess & real)]))
        return Rows({"segment": np.stack(segment), "event": np.stack(event), "seconds": np.stack(seconds)})

    def score(self, tally: Rows) -> Scores:
        """Type@AV on segments; beside it all scores of both levels, and F over all seconds of each class."""
        levels = {}
        for level in LEVELS:
            means = ParsingScores(*tally.columns[level].mean(axis=0).tolist())
            levels[f"{level}_level"] = {**asdict(means), "type": means.type}
        right, wrong, missing = tally.columns["seconds"].sum(axis=0)
        rows = []
        for k, label in enumerate(self.labels):
            row: dict[str, Any] = {"label": label}
            for stream, name in enumerate(("heard", "seen")):
                counts = int(right[stream, k]), int(wrong[stream, k]), int(missing[stream, k])
                row[f"f1_{name}"] = (
                    2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]) if any(counts) else None
                )
                row[f"segments_{name}"] = counts[0] + counts[2]
            rows.append(row)
        details = {
            "clips": len(tally.columns["segment"]),
            **levels,
            "tables": {"Scores by level": [_table_row(level, levels[f"{level}_level"]) for level in LEVELS]},
            "per_class": rows,
        }
        return Scores("Type@AV on segments", levels["segment_level"]["type"], details)

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """``majority``: the most frequent classes, as many of them as score best on the training clips, always.

        Always hearing and seeing the one commonest class is a strong answer where a class is in every third clip, and
        a poor one where clips have several; so their number is chosen as training clips ask for.
        """
        heard, seen, both, lengths = [], [], [], []
        for truth in truths:
            target = truth.target.bool()
            if self.settings.supervision == "clips":
                target = target.any(dim=(0, 1)).expand_as(target)
            heard.append(target[:, HEARD].sum(0))
            seen.append(target[:, SEEN].sum(0))
            both.append(target.all(dim=1).sum(0))
            lengths.append(len(target))
        chosen = torch.zeros(len(self.labels), dtype=torch.bool)
        if lengths:
            counts = [torch.stack(part).double().numpy() for part in (heard, seen, both)]
            chosen = torch.from_numpy(best_constant(counts, np.asarray(lengths)))

        def majority(batch: Batch) -> Tensor:
            logits = torch.where(chosen, 1.0, -1.0).to(batch.valid.device)
            return logits.expand(*batch.valid.shape, 3, -1)

        return {"majority": majority}

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """``probabilities`` (batch, T, 2, classes) and ``clip_probabilities`` (batch, T, classes)."""
        shares = outputs.float().sigmoid()
        return {"probabilities": shares[:, :, :CLIP], "clip_probabilities": shares[:, :, CLIP]}

    def predict(
        self, path: Path, windows: Sequence[Window], question: str | None = None
    ) -> ParsingPrediction:
        """What is heard and seen in each segment; where windows overlap their probabilities are averaged."""
        seconds = self.input.segment_seconds
        parts = [segment_means(windows, part, seconds) for part in ("probabilities", "clip_probabilities")]
        return ParsingPrediction(path, self.labels, seconds, *parts, notes=window_notes(windows))


def best_constant(counts: Sequence[npt.NDArray[np.float64]], lengths: npt.NDArray[np.int64]) -> Booleans:
    """The classes that are best answered in every segment of every clip, heard and seen.

    Classes are tried from the most frequent on, 0 to all of them; the score is Type@AV on segments.

    Args:
        counts: Segments of each clip in which each class is heard, is seen, is both: three of (clips, classes).
        lengths: Segments of each clip.

    Returns:
        (classes,).
    """
    order = np.argsort(-(counts[HEARD] + counts[SEEN]).sum(axis=0), kind="stable")
    scores = np.zeros(len(order) + 1)
    for seconds in counts:
        shares = 2 * seconds / (lengths[:, None] + seconds)
        true = seconds > 0
        for number in range(len(order) + 1):
            named = order[:number]
            # F is averaged over the classes that are named or true; where there are none it is 1.
            classes = number + true.sum(axis=1) - true[:, named].sum(axis=1)
            means = shares[:, named].sum(axis=1) / np.maximum(classes, 1)
            scores[number] += np.where(classes, means, 1.0).mean()
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[: int(scores.argmax())]] = True
    return chosen


def _binary(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(dim=-1)


def _table_row(level: str, scores: Mapping[str, float]) -> dict[str, object]:
    names = {"audio": "heard", "video": "seen", "audio_video": "both", "type": "Type@AV", "event": "Event@AV"}
    return {"level": f"{level}s", **{shown: scores[name] for name, shown in names.items()}}


def _row(scores: ParsingScores) -> npt.NDArray[np.float64]:
    return np.asarray([scores.audio, scores.video, scores.audio_video, scores.event])
