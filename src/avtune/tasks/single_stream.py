"""The floors of a task: an audio-only and a video-only model, trained in one walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.datasets import Record
from avtune.encoder import Encoded
from avtune.fusion import Notes
from avtune.tasks.base import Loss, Scores, Task
from avtune.tasks.predictions import Prediction, Window
from avtune.transforms import Batch


class SingleStreamHeads(nn.Module):
    """Two heads of one task, of which each sees one stream and zeros for the other.

    Args:
        audio: Sees the sound.
        video: Sees the frames.
    """

    def __init__(self, audio: nn.Module, video: nn.Module) -> None:
        super().__init__()
        self.audio, self.video = audio, video

    def forward(self, encoded: Encoded) -> Tensor:
        """Outputs of the sound alone and of the frames alone, stacked."""
        own = tuple(Notes(encoded.notes.segments) for _ in range(2))
        encoded.notes.alone = own
        heard = replace(
            encoded,
            notes=own[0],
            video=torch.zeros_like(encoded.video),
            video_pooled=torch.zeros_like(encoded.video_pooled),
            video_stages=tuple(map(torch.zeros_like, encoded.video_stages)),
        )
        seen = replace(
            encoded,
            notes=own[1],
            audio=torch.zeros_like(encoded.audio),
            audio_pooled=torch.zeros_like(encoded.audio_pooled),
        )
        return torch.stack([self.audio(heard), self.video(seen)])


class SingleStreamTask(Task):
    """A task answered from the sound alone and from the frames alone.

    Meant for an encoder whose streams do not hear each other (LAVISH with ``direction: none``).

    Args:
        task: The task.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task.labels, task.input, task.head, task.words)
        self.task = task
        self.target_per_segment, self.needs_stages = task.target_per_segment, task.needs_stages
        self.target_is_picture = task.target_is_picture
        self.question_length, self.mixable = task.question_length, task.mixable

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """:class:`SingleStreamHeads`."""
        return SingleStreamHeads(*(self.task.build_head(audio_tower, video_tower) for _ in range(2)))

    def target(self, record: Record) -> Tensor:
        """As the task's."""
        return self.task.target(record)

    def soft_target(self, target: Tensor) -> Tensor:
        """As the task's."""
        return self.task.soft_target(target)

    def question(self, record: Record) -> Tensor | None:
        """As the task's."""
        return self.task.question(record)

    def begin(self, head: nn.Module) -> None:
        """As the task's, for both heads."""
        for part in head.children():
            self.task.begin(part)

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Sum of both models' losses; no weight is in both, so each trains as if alone."""
        audio, video = (
            self.task.loss(part, replace(encoded, notes=notes), batch)
            for part, notes in zip(outputs, encoded.notes.alone, strict=True)
        )
        return Loss(audio.total + video.total, audio.count)

    def tally(self, outputs: Tensor, batch: Batch) -> Pair:
        """Both tallies."""
        return Pair(*(self.task.tally(part, batch) for part in outputs))

    def score(self, tally: Pair) -> Scores:
        """The better stream's score, both beside it."""
        audio, video = self.task.score(tally.audio), self.task.score(tally.video)
        details = {"audio only": audio.value, "video only": video.value}
        return Scores(f"best single stream, {audio.name}", max(audio.value, video.value), details)

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Refused: floors are scored, not used."""
        raise NotImplementedError("the floors of a run are for scoring; predict with the run itself")

    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> Prediction:
        """Refused, as :meth:`parts`."""
        raise NotImplementedError("the floors of a run are for scoring; predict with the run itself")


class Pair:
    """The tallies of both streams.

    Args:
        audio: Of the sound alone.
        video: Of the frames alone.
    """

    def __init__(self, audio: Any, video: Any) -> None:
        self.audio, self.video = audio, video

    def __add__(self, other: Pair) -> Pair:
        """Both, stream by stream."""
        return Pair(self.audio + other.audio, self.video + other.video)
