"""AVEL: look where it sounds, listen and watch through time, then decide (Tian et al., ECCV 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.heads.attention import AudioGuidedAttention, Guidance
from avtune.heads.segments import BidirectionalLSTM, cells, existing
from avtune.options import choose


@dataclass(frozen=True)
class AvelSettings:
    """Settings of AVEL.

    Attributes:
        guidance: Where the sound enters the attention.
        loss: ``multi_label``, as the authors' code, which needs thousands of updates to leave the most frequent
            class; ``cross_entropy``, which does not.
    """

    guidance: Guidance = "hidden"
    loss: Literal["multi_label", "cross_entropy"] = "multi_label"


PRESETS = {
    "paper": AvelSettings(),
    "official": AvelSettings(guidance="cell"),
    "cross_entropy": AvelSettings(loss="cross_entropy"),
}


class AvelHead(nn.Module):
    """Audio-guided attention, a bidirectional LSTM in each stream, both concatenated into two linear layers.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of a frame's cells.
        classes: Labels plus one; the last class is background.
        hidden: Width of the attention's first layers.
        settings: See :class:`AvelSettings`.

    Attributes:
        unused_parameters: Weights of the authors' module that take no part; the published count includes them.
    """

    unused_parameters = 0

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int, settings: AvelSettings
    ) -> None:
        super().__init__()
        self.attention = AudioGuidedAttention(audio_dim, video_dim, hidden, guidance=settings.guidance)
        self.audio = BidirectionalLSTM(audio_dim, 128)
        self.video = BidirectionalLSTM(video_dim, 128)
        self.hidden = nn.Linear(512, 64)
        self.classes = nn.Linear(64, classes)
        for layer in (self.hidden, self.classes):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes).

        Raises:
            AvtuneError: The preset ``official`` meets a grid that is not 7 x 7.
        """
        audio, valid = encoded.audio_pooled, existing(encoded)
        video = self.attention(audio, cells(encoded))
        both = torch.cat([self.audio(audio, valid), self.video(video, valid)], dim=-1)
        logits: Tensor = self.classes(torch.relu(self.hidden(torch.relu(both))))
        return logits


def build_avel(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> AvelHead:
    """The head as a recipe states it."""
    return AvelHead(audio_dim, video_dim, classes, config.hidden, avel_settings(config))


def avel_settings(config: HeadConfig) -> AvelSettings:
    """The settings of the preset that a recipe names."""
    return choose("preset of avel", config.preset or "paper", PRESETS)


def avel_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """One binary question for each class, asked of the softmax's probabilities as if they were logits.

    ``-1/C Σ_c [y_c log σ(p_c) + (1 - y_c) log(1 - σ(p_c))]`` with ``p = softmax(logits)``, as the authors' code:
    even a perfect answer leaves a loss, of 0.680 for 29 classes.

    Args:
        logits: (batch, T, classes).
        notes: Not read.
        target: Class indices (batch, T).
        valid: (batch, T) bool.
        config: Names the preset; ``cross_entropy`` takes that instead.

    Returns:
        Sum over the valid segments.
    """
    if avel_settings(config).loss == "cross_entropy":
        return F.cross_entropy(logits[valid], target[valid], reduction="sum")
    one_hot = F.one_hot(target[valid], logits.shape[-1]).to(logits.dtype)
    asked = F.multilabel_soft_margin_loss(logits[valid].softmax(-1), one_hot, reduction="none")
    return asked.sum()
