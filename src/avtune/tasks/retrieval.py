"""Retrieval: which frames belong to a sound, and which sound to frames."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.encoder import Encoded
from avtune.fusion.contrastive import contrastive_loss, gather_rows
from avtune.heads.retrieval import PRESETS, RetrievalHead
from avtune.heads.segments import full_precision
from avtune.metrics.retrieval import partner_ranks, retrieval_scores
from avtune.options import chosen
from avtune.tasks.base import Loss, Rows, Scores, Task
from avtune.tasks.predictions import Floats, Prediction, Window, window_notes
from avtune.transforms import Batch

NO_GROUP = -1
OWN_FILE = -1e3
"""Similarity to other clips of the same file, which are no wrong answers: far below any cosine, and finite."""
DECIMALS = 6
"""Similarities that agree so far are ties: beyond it they tell how numbers were rounded, not how alike clips are."""
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class RetrievalPrediction(Prediction):
    """Where a file's sound and frames lie in the space that is searched.

    Attributes:
        starts: Where each window begins in the file, seconds (windows,).
        weights: Segments of the file in each window (windows,).
        audio: Vector of each window's sound (windows, width), of unit length; zeros where there is none.
        video: Vector of each window's frames.
    """

    starts: Floats
    weights: Floats
    audio: Floats
    video: Floats

    @property
    def vectors(self) -> Floats:
        """The file's own vectors (2, width), sound first: the windows' means, of unit length or zeros."""
        weights = self.weights[:, None].astype(np.float64)
        return unit(np.stack([(weights * part).sum(axis=0) for part in (self.audio, self.video)]))

    @property
    def agreement(self) -> float | None:
        """Cosine of the file's sound and frames; ``None`` where it lacks one."""
        audio, video = self.vectors
        return float(audio @ video) if audio.any() and video.any() else None


class RetrievalTask(Task):
    """A vector for a clip's sound and one for its frames, trained to find each other among other clips'.

    The streams are encoded apart: a vector that had heard its partner would be found without any understanding.
    The score is the mean of recall at rank 1 from sound to frames and from frames to sound.

    Args:
        labels: Names of the classes, by which results among clips of one class are told.
        input: Segments per clip and their length.
        head: ``preset`` and ``options`` are those of :class:`avtune.heads.retrieval.RetrievalSettings`.
        words: Not read.

    Raises:
        avtune.options.OptionError: There is no such preset or option.
    """

    streams_apart = True

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.settings = chosen("retrieval", PRESETS, head.preset, head.options)

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """:class:`avtune.heads.retrieval.RetrievalHead`."""
        return RetrievalHead(audio_tower.dim, video_tower.dim, self.settings)

    def target(self, record: Record) -> Tensor:
        """The class that its distractors share, () int64: that of the first event; -1 where it has none."""
        events = record.events
        return torch.tensor(self.labels.index(events[0].label) if events else NO_GROUP)

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """InfoNCE in both directions over the clips of all processes.

        Clips of one file are no wrong answers to each other, and clips that lack a stream take no part. Micro-batches
        of one update (``train.accumulate``) do not see each other's clips.
        """
        takes_part = _whole(batch)
        everyone = gather_rows(takes_part.float()) > 0
        with full_precision(outputs):
            vectors = gather_rows(outputs.float())
            similarity = vectors[:, 1] @ vectors[:, 0].T
            files = gather_rows(_file_numbers(batch).to(outputs.device))
            own = (files[:, None] == files) & (files > 0)
            own.fill_diagonal_(False)
            mean = contrastive_loss(
                similarity.masked_fill(own, OWN_FILE), everyone, encoded.notes.records["temperature"][-1]
            )
        # Every process computes the whole sum and brings in its part of it.
        processes = dist.get_world_size() if dist.is_initialized() else 1
        return Loss(mean * everyone.sum() / processes, int(takes_part.sum()))

    def tally(self, outputs: Tensor, batch: Batch) -> Rows:
        """Each clip's vectors, how many segments it has where it has both streams (else 0), its class and file."""
        assert batch.target is not None
        vectors = outputs.float().cpu().numpy()
        weights = (batch.valid.sum(dim=1) * _whole(batch)).cpu().numpy()
        sources = batch.sources or [""] * len(batch)
        files = np.asarray([source or name for source, name in zip(sources, batch.names, strict=True)])
        group = batch.target.cpu().numpy()
        return Rows(
            {"audio": vectors[:, 0], "video": vectors[:, 1], "weight": weights, "group": group, "file": files}
        )

    def score(self, tally: Rows) -> Scores:
        """Mean recall at rank 1, with more ranks, and the same among clips of one class, beside it.

        A file is one query and one candidate, with the mean vectors of its clips; files that lack a stream are neither.
        Equal similarities rank the partner last, so that vectors which tell nothing apart find nothing.
        """
        audio, video, group = _files(tally.columns)
        left_out = len(set(tally.columns["file"].tolist())) - len(audio)
        notes = (
            [f"{left_out} files lack sound or frames and were left out of the search."] if left_out else []
        )
        if not len(audio):
            return Scores("mean recall at 1", 0.0, {"queries": 0, "left_out": left_out, "notes": notes})
        ranks = _ranks(audio, video)
        details: dict[str, Any] = {
            "queries": len(audio),
            "left_out": left_out,
            "notes": notes,
            **_scores(ranks),
        }
        rows = [_table_row(f"{name}, all {len(audio)}", details[key]) for key, name in DIRECTIONS.items()]
        if within := _within_groups(audio, video, group):
            details["same_class"] = within
            rows += [
                _table_row(f"{name}, clips of its class", within[key]) for key, name in DIRECTIONS.items()
            ]
        details["tables"] = {"Where the partner ranks": rows}
        value = float(np.mean([details[direction]["recall_at_1"] for direction in DIRECTIONS]))
        return Scores("mean recall at 1", value, details, floors={"chance": 1 / len(audio)})

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """``vectors`` (batch, 2, width), sound first."""
        return {"vectors": outputs.float()}

    def predict(
        self, path: Path, windows: Sequence[Window], question: str | None = None
    ) -> RetrievalPrediction:
        """The vectors of each window."""
        vectors = np.stack([window.parts["vectors"] for window in windows]).astype(np.float32)
        starts = np.asarray([window.start for window in windows], dtype=np.float32)
        weights = np.asarray([int(window.valid.sum()) for window in windows], dtype=np.float32)
        return RetrievalPrediction(
            path, self.labels, self.input.segment_seconds, starts, weights, vectors[:, 0], vectors[:, 1],
            notes=window_notes(windows),
        )  # fmt: skip


DIRECTIONS = {"audio_to_video": "sound to frames", "video_to_audio": "frames to sound"}


def unit(vectors: npt.NDArray[np.float64]) -> Floats:
    """Vectors (..., width) at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directions: Floats = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return directions


def _whole(batch: Batch) -> Tensor:
    """Clips that have both streams and a segment, (batch,) bool."""
    return batch.valid.any(dim=1) & batch.has_audio & batch.has_video


def _file_numbers(batch: Batch) -> Tensor:
    """A number for each clip's file, the same on all processes; 0: its file is not known."""
    digests = [
        int.from_bytes(hashlib.blake2b(source.encode(errors="surrogateescape"), digest_size=6).digest())
        for source in batch.sources
    ]
    numbers = [digest + 1 if source else 0 for digest, source in zip(digests, batch.sources, strict=True)]
    # Floats of 64 bits hold 48 exactly.
    return torch.tensor(numbers or [0.0] * len(batch.valid), dtype=torch.float64)


def _files(columns: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Vectors of the sound and of the frames of each file that has both, and its class."""
    rows = {name: values[columns["weight"] > 0] for name, values in columns.items()}
    names, place = np.unique(rows["file"], return_inverse=True)
    group = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(group, place, rows["group"])
    sums = []
    for stream in ("audio", "video"):
        vectors = rows[stream].astype(np.float64)
        sums.append(np.zeros((len(names), vectors.shape[1])))
        np.add.at(sums[-1], place, vectors * rows["weight"][:, None])
    return unit(sums[0]), unit(sums[1]), group


def _ranks(audio: Floats, video: Floats) -> dict[str, npt.NDArray[np.float64]]:
    """Ranks of the partners in both directions, a block of queries at a time."""
    found = {}
    for direction, queries, candidates in (
        ("audio_to_video", audio, video),
        ("video_to_audio", video, audio),
    ):
        blocks = []
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            block = queries[first : first + QUERIES_AT_ONCE].astype(np.float64)
            # The partners of this block's queries come to the front, where they are looked for.
            turned = np.roll(candidates, -first, axis=0).astype(np.float64)
            blocks.append(partner_ranks(np.round(block @ turned.T, DECIMALS)))
        found[direction] = np.concatenate(blocks)
    return found


def _scores(ranks: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    return {direction: asdict(retrieval_scores(places)) for direction, places in ranks.items()}


def _within_groups(audio: Floats, video: Floats, group: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Scores where only clips of the query's class are searched; empty where no class tells clips apart."""
    members = [np.flatnonzero(group == k) for k in np.unique(group) if k != NO_GROUP]
    members = [part for part in members if 1 < len(part) < len(group)]
    if not members:
        return {}
    ranks = [_ranks(audio[part], video[part]) for part in members]
    sizes = np.asarray([len(part) for part in members])
    together = {direction: np.concatenate([part[direction] for part in ranks]) for direction in DIRECTIONS}
    return {"queries": int(sizes.sum()), "chance": len(sizes) / float(sizes.sum()), **_scores(together)}


def _table_row(name: str, scores: Mapping[str, float]) -> dict[str, object]:
    recalls = {f"R@{k}": scores[f"recall_at_{k}"] for k in (1, 5, 10)}
    return {"search": name, **recalls, "median rank": f"{scores['median_rank']:g}"}
