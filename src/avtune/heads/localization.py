"""Event localization heads: what happens in each segment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes


class SegmentHead(nn.Module):
    """The LAVISH authors' head: both pooled streams, concatenated, through two linear layers.

    The paper's Figure 3a speaks of one linear layer; their code has two with no activation between, which is
    what the published counts include.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of the pooled frames.
        classes: Labels plus one; the last class is background.
        hidden: Width between the layers.
        dropout: Share of the values between the layers that training leaves out.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(video_dim + audio_dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(hidden, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes)."""
        pooled = torch.cat([encoded.video_pooled, encoded.audio_pooled], dim=-1)
        logits: Tensor = self.classes(self.dropout(self.hidden(pooled)))
        return logits


def build_segment_head(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> SegmentHead:
    """The head as a recipe states it."""
    return SegmentHead(audio_dim, video_dim, classes, config.hidden, config.dropout)


def segment_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy, or with ``binary_on_softmax`` the LAVISH authors' form.

    That is the binary cross-entropy of each softmax probability against the one-hot class, averaged over classes.

    Args:
        logits: (batch, T, classes).
        notes: Not read.
        target: Class indices (batch, T).
        valid: (batch, T) bool.
        config: Names the loss.

    Returns:
        Sum over the valid segments.
    """
    chosen, truth = logits[valid], target[valid]
    if config.loss == "cross_entropy":
        return F.cross_entropy(chosen, truth, reduction="sum")
    one_hot = F.one_hot(truth, logits.shape[-1]).float()
    return F.binary_cross_entropy(chosen.softmax(-1), one_hot, reduction="sum") / logits.shape[-1]
