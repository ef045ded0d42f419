"""MBT's classifier: one linear layer for both streams, on the mean of all tokens or on each stream's own vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.options import choose


@dataclass(frozen=True)
class MbtHeadSettings:
    """Settings of MBT's head.

    Attributes:
        read: ``mean``: the mean of all tokens of both streams, as the authors' released configuration;
            ``class_token``: each stream's pooled vector, as the paper: both answers are averaged, and each is
            trained by a loss of its own.
    """

    read: Literal["mean", "class_token"] = "mean"


PRESETS = {"mean": MbtHeadSettings(), "class_token": MbtHeadSettings(read="class_token")}


class MbtHead(nn.Module):
    """One linear layer, zero at the start, shared by both streams.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of the frames, the same.
        classes: Labels plus one; the last class is background.
        settings: See :class:`MbtHeadSettings`.

    Raises:
        AvtuneError: The streams' widths differ.
    """

    def __init__(self, audio_dim: int, video_dim: int, classes: int, settings: MbtHeadSettings) -> None:
        super().__init__()
        if audio_dim != video_dim:
            raise AvtuneError(
                f"the head mbt reads both streams with the same weights, but they have {audio_dim} and {video_dim} "
                "channels; use --head.name segment"
            )
        self.read = settings.read
        self.classes = nn.Linear(video_dim, classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes); each stream's own go to the notes as ``stream_logits``."""
        if self.read == "class_token":
            own = self.classes(torch.stack([encoded.audio_pooled, encoded.video_pooled]))
            encoded.notes.record("stream_logits", own)
            averaged: Tensor = own.mean(0)
            return averaged
        count = encoded.audio.shape[1] + encoded.video.shape[1]
        mean = (encoded.audio.sum(1) + encoded.video.sum(1)) / count
        logits: Tensor = self.classes(mean.view(-1, encoded.notes.segments, mean.shape[-1]))
        return logits


def build_mbt_head(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> MbtHead:
    """The head as a recipe states it."""
    return MbtHead(audio_dim, video_dim, classes, mbt_settings(config))


def mbt_settings(config: HeadConfig) -> MbtHeadSettings:
    """The settings of the preset that a recipe names."""
    return choose("preset of mbt", config.preset or "mean", PRESETS)


def mbt_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy; with ``class_token`` the mean of the two streams' own.

    Args:
        logits: (batch, T, classes).
        notes: Hold the streams' own logits.
        target: Class indices (batch, T).
        valid: (batch, T) bool.
        config: Names the settings.

    Returns:
        Sum over the valid segments.
    """
    if mbt_settings(config).read == "mean":
        return F.cross_entropy(logits[valid], target[valid], reduction="sum")
    own = notes.records["stream_logits"][-1].float()
    audio, video = (F.cross_entropy(part[valid], target[valid], reduction="sum") for part in own)
    return (audio + video) / 2
