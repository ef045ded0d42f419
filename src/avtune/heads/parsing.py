"""Audio-visual video parsing: what is heard and what is seen in each segment, learned from whole clips' labels.

Attentive multi-modal multiple-instance pooling of Tian, Li and Xu, "Unified Multisensory Perception: Weakly-Supervised
Audio-Visual Video Parsing", ECCV 2020, behind their hybrid attention network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.encoder import Encoded
from avtune.heads.segments import existing, full_precision

NEVER = -1e4
"""Logit of what cannot be heard or seen: its probability is zero in any precision."""
SMALLEST = 1e-7
"""How close to 0 and 1 a probability may come whose weights need not sum to one, as in the authors' code."""


@dataclass(frozen=True)
class ParsingSettings:
    """Settings of the parsing head and of its loss.

    Attributes:
        width: Channels that both streams are brought to.
        hybrid_layers: Layers of the hybrid attention network; 0: each segment is answered from itself alone.
        attention_heads: Heads of its attentions.
        dropout: Share of values that these layers leave out in training.
        pooling: How a clip's probability is pooled. ``product``: each segment's and stream's weight is the softmax
            over time times the softmax over streams, as in the paper; they sum to one only where both streams
            attend to the same segments, so the probability is kept below one by force. ``joint``: one softmax over
            all segments of both streams.
        supervision: ``clips``: training reads only which events a clip holds; ``segments``: also in which seconds
            each is heard and seen.
        audio_smoothing: Share by which the labels of the sound alone are drawn to one half.
        video_smoothing: The same for the frames alone, where more labels are wrong: what is only heard is told of
            them as well.
    """

    width: int = 512
    hybrid_layers: int = 1
    attention_heads: int = 1
    dropout: float = 0.1
    pooling: Literal["product", "joint"] = "product"
    supervision: Literal["clips", "segments"] = "clips"
    audio_smoothing: float = 0.0
    video_smoothing: float = 0.1


PRESETS = {
    "paper": ParsingSettings(),
    "joint": ParsingSettings(pooling="joint"),
    "without_attention": ParsingSettings(hybrid_layers=0),
}
"""As the paper's authors trained it; pooling whose weights sum to one; the paper's without hybrid attention."""


class HybridAttention(nn.Module):
    """One layer of the hybrid attention network: each segment attends to its own stream and to the other.

    ``x + softmax(x Xᵀ) X + softmax(x Yᵀ) Y`` with projections of their own, normalised; then two linear layers. Both
    streams pass the same weights, as in the authors' code.

    Args:
        width: Channels.
        heads: Heads of both attentions.
        dropout: Share of values left out in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.within = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.across = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, other: Tensor, absent: Tensor) -> Tensor:
        """Read a stream in the context of both.

        Args:
            x: The stream (batch, T, width).
            other: The other stream (batch, T, width).
            absent: Segments that nobody attends to, (batch, T) bool; not all of a clip's.

        Returns:
            (batch, T, width).
        """
        own, _ = self.within(x, x, x, key_padding_mask=absent, need_weights=False)
        heard, _ = self.across(x, other, other, key_padding_mask=absent, need_weights=False)
        x = self.attention_norm(x + self.dropout(heard) + self.dropout(own))
        out: Tensor = self.feed_norm(x + self.dropout(self.feed(x)))
        return out


class ParsingHead(nn.Module):
    """What is heard and seen in each segment, and what a clip holds at all.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of the pooled frames.
        classes: Labels.
        settings: See :class:`ParsingSettings`.
    """

    def __init__(self, audio_dim: int, video_dim: int, classes: int, settings: ParsingSettings) -> None:
        super().__init__()
        width = settings.width
        self.audio, self.video = nn.Linear(audio_dim, width), nn.Linear(video_dim, width)
        self.layers = nn.ModuleList(
            HybridAttention(width, settings.attention_heads, settings.dropout)
            for _ in range(settings.hybrid_layers)
        )
        self.classes = nn.Linear(width, classes)
        self.time_attention = nn.Linear(width, classes)
        self.stream_attention = nn.Linear(width, classes)
        self.pooling = settings.pooling

    def forward(self, encoded: Encoded) -> Tensor:
        """Answer every segment, and the clip by pooling them.

        A stream that a clip lacks takes no part in the pooling, and nothing of it is heard or seen. The answers of
        the sound alone and of the frames alone, logits (batch, 2, classes), go to the notes as
        ``stream_clip_logits``.

        Args:
            encoded: Both streams after their towers.

        Returns:
            Logits (batch, T, 3, classes): heard, seen, and the clip's own, the same in every segment.
        """
        valid = existing(encoded)
        audio, video = self.audio(encoded.audio_pooled), self.video(encoded.video_pooled)
        for layer in self.layers:
            audio, video = layer(audio, video, ~valid), layer(video, audio, ~valid)
        x = torch.stack([audio, video], dim=2)
        answers, time, stream = self.classes(x), self.time_attention(x), self.stream_attention(x)
        here = _streams(encoded)
        # Logarithms of probabilities of few events need full precision.
        with full_precision(x):
            clip, alone = pool(
                answers.float(), time.float(), stream.float(), valid, here, joint=self.pooling == "joint"
            )
            encoded.notes.record("stream_clip_logits", alone)
            told = answers.float().masked_fill(~here[:, None, :, None], NEVER)
        return torch.cat([told, clip[:, None, None].expand(-1, x.shape[1], -1, -1)], dim=2)


def pool(
    answers: Tensor, time: Tensor, stream: Tensor, valid: Tensor, here: Tensor, *, joint: bool
) -> tuple[Tensor, Tensor]:
    """Attentive multi-modal multiple-instance pooling, in logarithms.

    A clip's probability of a class is ``Σ_t Σ_m w_tm p_tm`` over its segments t and streams m, where ``w`` is
    ``softmax_t(time) · softmax_m(stream)``; a stream's own is ``Σ_t softmax_t(time) p_tm``.

    Args:
        answers: Logits of the segments (batch, T, 2, classes), sound first.
        time: Logits of the weights over time, of the same shape.
        stream: Logits of the weights over the streams, of the same shape.
        valid: Segments that take part (batch, T) bool, at least one of each clip.
        here: Streams that take part (batch, 2) bool, at least one of each clip.
        joint: One softmax over segments and streams instead of the product of two.

    Returns:
        Logits of the clip (batch, classes), and of each stream alone (batch, 2, classes).
    """
    yes, no = F.logsigmoid(answers), F.logsigmoid(-answers)
    out_of_time, out_of_clip = ~valid[:, :, None, None], ~here[:, None, :, None]
    over_time = time.masked_fill(out_of_time, -torch.inf).log_softmax(dim=1)
    # Weights that sum to one leave the rest to "no", so that neither probability is a difference from one.
    alone = (over_time + yes).logsumexp(dim=1) - (over_time + no).logsumexp(dim=1)
    if joint:
        weights = (time + stream).masked_fill(out_of_time | out_of_clip, -torch.inf)
        weights = weights.flatten(1, 2).log_softmax(dim=1)
        return (weights + yes.flatten(1, 2)).logsumexp(dim=1) - (weights + no.flatten(1, 2)).logsumexp(
            dim=1
        ), alone
    over_streams = stream.masked_fill(out_of_clip, -torch.inf).log_softmax(dim=2)
    share = (over_time + over_streams + yes).logsumexp(dim=(1, 2)).exp().clamp(SMALLEST, 1 - SMALLEST)
    return share.log() - (-share).log1p(), alone


def _streams(encoded: Encoded) -> Tensor:
    """Which streams each clip has, (batch, 2) bool; both where it has none, whose outputs nobody reads."""
    batch = len(encoded.audio_pooled)
    whole = torch.ones(batch, dtype=torch.bool, device=encoded.audio_pooled.device)
    audio = whole if encoded.has_audio is None else encoded.has_audio
    video = whole if encoded.has_video is None else encoded.has_video
    here = torch.stack([audio, video], dim=1)
    none: Tensor = ~here.any(dim=1, keepdim=True)
    return here | none
