"""CMBS: each stream suppresses what the other takes for background (Xia and Zhao, CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.heads.cmbs_layers import (
    CrossModalLayer,
    Interaction,
    SpatialChannelAttention,
    TemporalEncoder,
    weight_count,
)
from avtune.heads.segments import BidirectionalLSTM, cells, existing
from avtune.options import choose

WIDTH, FEED = 256, 1024
RELEVANCE, EVENTS, GATE, ACTIVATION = "cmbs.relevance", "cmbs.events", "cmbs.gate", "cmbs.activation"


@dataclass(frozen=True)
class CmbsSettings:
    """Settings of CMBS.

    Attributes:
        alpha: How much a stream's gate adds to the other stream (time-level suppression).
        beta: How much the frame's attention to itself adds to the audio-guided one.
        gamma: How much the streams' own class scores add to the joint ones (event-level suppression).
        strongest: Segments whose class scores are averaged to a clip's.
        gate_loss: ``probability``: binary cross-entropy of the gates' product, which lies between 0 and 1;
            ``logit``: of its sigmoid once more, as the authors' code.
    """

    alpha: float = 0.1
    beta: float = 0.4
    gamma: float = 0.3
    strongest: int = 4
    gate_loss: Literal["probability", "logit"] = "probability"


PRESETS = {"paper": CmbsSettings(), "official": CmbsSettings(gate_loss="logit")}


class CmbsHead(nn.Module):
    """Spatial-channel attention, recurrence, cross-modal attention, gates; relevance and class apart.

    Which segments are relevant is answered for each segment, which event it is once for the clip.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of a frame's cells.
        classes: Labels plus one; the last class is background.
        hidden: Channels to which the cells are reduced.
        settings: See :class:`CmbsSettings`.

    Attributes:
        unused_parameters: Weights of the authors' module that take no part; the published count includes them.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int, settings: CmbsSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.reduce = nn.Sequential(nn.Linear(video_dim, hidden), nn.ReLU(), nn.Dropout(0.2))
        self.attention = SpatialChannelAttention(audio_dim, hidden, settings.beta)
        self.audio = BidirectionalLSTM(audio_dim, WIDTH // 2)
        self.video = BidirectionalLSTM(hidden, WIDTH)
        self.audio_memory = TemporalEncoder(WIDTH, WIDTH, FEED)
        self.video_memory = TemporalEncoder(2 * WIDTH, WIDTH, FEED)
        self.audio_query = nn.Linear(WIDTH, WIDTH)
        self.video_query = nn.Linear(2 * WIDTH, WIDTH)
        self.audio_hears = CrossModalLayer(WIDTH, FEED)
        self.video_hears = CrossModalLayer(WIDTH, FEED)
        self.audio_gate = nn.Linear(WIDTH, 1)
        self.video_gate = nn.Linear(WIDTH, 1)
        self.audio_classes = nn.Linear(WIDTH, classes - 1)
        self.video_classes = nn.Linear(WIDTH, classes - 1)
        self.video_interaction = Interaction(WIDTH)
        self.audio_interaction = Interaction(WIDTH)
        self.relevance = nn.Linear(WIDTH, 1)
        self.events = nn.Linear(WIDTH, classes - 1)
        self.unused_parameters = self._unused(hidden)

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes); relevance, gates and class scores go into the notes."""
        valid, s = existing(encoded), self.settings
        attended = self.attention(encoded.audio_pooled, self.reduce(cells(encoded)))
        audio, video = self.audio(encoded.audio_pooled, valid), self.video(attended, valid)

        audio_memory, video_memory = self.audio_memory(audio, valid), self.video_memory(video, valid)
        audio = self.audio_hears(self.audio_query(audio), video_memory, valid)
        video = self.video_hears(self.video_query(video), audio_memory, valid)

        audio_gate = torch.sigmoid(self.audio_gate(audio_memory))
        video_gate = torch.sigmoid(self.video_gate(video_memory))
        audio, video = audio * (1 + s.alpha * video_gate), video * (1 + s.alpha * audio_gate)

        audio_scores = strongest_mean(self.audio_classes(audio), valid, s.strongest)
        video_scores = strongest_mean(self.video_classes(video), valid, s.strongest)
        activation = (audio_scores + video_scores) / 2

        video = self.video_interaction(video, audio, valid)
        audio = self.audio_interaction(audio, video, valid)
        both = (audio + video) / 2
        relevance = self.relevance(both).squeeze(-1)
        peak = both.masked_fill(~valid[..., None], -torch.inf).amax(dim=1)
        events = self.events(peak) + s.gamma * activation

        gate = (audio_gate * video_gate).squeeze(-1)
        for name, value in ((RELEVANCE, relevance), (EVENTS, events), (GATE, gate), (ACTIVATION, activation)):
            encoded.notes.record(name, value)
        return gated_logits(relevance, events)

    def _unused(self, hidden: int) -> int:
        # The authors' encoders and decoders hold the layer that they were copied from, each decoder layer a
        # self-attention; beside them stand two norms and a layer of the attention that nothing calls.
        memory, decoder = self.audio_memory.layers[0], self.audio_hears
        assert isinstance(memory, nn.Module)
        self_attention = weight_count(decoder.attention)
        templates = 2 * weight_count(memory) + 2 * (weight_count(decoder) + self_attention)
        norms, bottleneck = 2 * 2 * WIDTH, (hidden + 1) * (hidden // 2)
        return templates + 2 * self_attention + norms + bottleneck


def strongest_mean(scores: Tensor, valid: Tensor, count: int) -> Tensor:
    """A clip's class scores: the mean of each class's highest ones over time.

    Args:
        scores: (batch, T, classes).
        valid: (batch, T) bool with at least one true in each row; the other segments do not count.
        count: How many are averaged; fewer where a clip has fewer segments.

    Returns:
        (batch, classes).
    """
    ranked = scores.masked_fill(~valid[..., None], -torch.inf).sort(dim=1, descending=True).values
    taken = valid.sum(dim=1).clamp(max=count)
    counts = torch.arange(scores.shape[1], device=scores.device) < taken[:, None]
    return torch.where(counts[..., None], ranked, 0.0).sum(dim=1) / taken[:, None]


def gated_logits(relevance: Tensor, events: Tensor) -> Tensor:
    """The authors' answer as logits: the clip's best event where a segment is relevant, else background.

    ``softmax([e - max e, -r])``: the odds of the best event against background are those of the relevance,
    ``σ(r) : 1 - σ(r)``, so the largest logit is an event's exactly if ``σ(r) > 1/2``, and it is that of
    ``argmax e``. (At ``r = 0`` both are equal; the authors answer background.)

    Args:
        relevance: Logits (batch, T).
        events: Class scores of the clip (batch, classes - 1).

    Returns:
        (batch, T, classes), background last.
    """
    relative = (events - events.amax(dim=-1, keepdim=True)).unsqueeze(1)
    return torch.cat([relative.expand(-1, relevance.shape[1], -1), -relevance.unsqueeze(-1)], dim=-1)


def build_cmbs(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> CmbsHead:
    """The head as a recipe states it."""
    return CmbsHead(audio_dim, video_dim, classes, config.hidden, cmbs_settings(config))


def cmbs_settings(config: HeadConfig) -> CmbsSettings:
    """The settings of the preset that a recipe names."""
    return choose("preset of cmbs", config.preset or "paper", PRESETS)


def cmbs_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """Two binary questions for each segment and two of the class for each clip.

    ``BCE(relevance) + BCE(gate) + CE(events) + CE(activation)``. The class of a clip is that of its event
    segments; where these show several, each class in its share. A clip without event has no class to learn.

    Args:
        logits: (batch, T, classes), background last; only its width is read.
        notes: Holds the four parts.
        target: Class indices (batch, T).
        valid: (batch, T) bool.
        config: Names the preset.

    Returns:
        Sum over the valid segments; what is said of a clip counts once for each of them.
    """
    relevance, events, gate, activation = (
        notes.records[name][-1].float() for name in (RELEVANCE, EVENTS, GATE, ACTIVATION)
    )
    event = (target != logits.shape[-1] - 1) & valid
    truth = event.float()[valid]
    as_logit = cmbs_settings(config).gate_loss == "logit"
    gate_loss = F.binary_cross_entropy_with_logits if as_logit else F.binary_cross_entropy
    segments = F.binary_cross_entropy_with_logits(relevance[valid], truth, reduction="sum")
    segments = segments + gate_loss(gate[valid], truth, reduction="sum")

    shares = F.one_hot(target, logits.shape[-1])[..., :-1] * event[..., None]
    shares = shares.sum(dim=1) / event.sum(dim=1, keepdim=True).clamp(min=1)
    clips = sum(F.cross_entropy(scores, shares, reduction="none") for scores in (events, activation))
    return segments + (clips * valid.sum(dim=1)).sum()
