"""PSP: segments of sound and picture that agree pass on what they hold (Zhou et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.heads.attention import AudioGuidedAttention, Guidance
from avtune.heads.segments import BidirectionalLSTM, cells, existing
from avtune.options import choose

WIDTH = 128
SIMILARITY = "psp.similarity"


@dataclass(frozen=True)
class PspSettings:
    """Settings of PSP.

    Attributes:
        guidance: Where the sound enters the attention.
        threshold: Share of a segment's affinity below which a pair is cut; just under one tenth, the share of
            each segment of ten that are all alike.
        similarity_weight: Weight of the pair similarity loss.
        dropout: Probability behind each projection.
    """

    guidance: Guidance = "hidden"
    threshold: float = 0.099
    similarity_weight: float = 100.0
    dropout: float = 0.1


PRESETS = {"paper": PspSettings(), "official": PspSettings(guidance="cell")}


def prune(affinity: Tensor, threshold: float) -> Tensor:
    """Cut weak pairs: normalise each row, drop what is not above the threshold, normalise again.

    Args:
        affinity: Non-negative (batch, T, T).
        threshold: Share of its row that a pair has to exceed.

    Returns:
        (batch, T, T); rows sum to one, or to zero where nothing is left.
    """
    share = affinity / (affinity.sum(-1, keepdim=True) + 1e-8)
    kept = torch.where(share > threshold, share, 0.0)
    return kept / (kept.sum(-1, keepdim=True) + 1e-8)


class Propagation(nn.Module):
    """Positive sample propagation: each segment takes up what the other stream's agreeing segments hold.

    ``β = relu(v₂ a₁ᵀ / √d)``, ``v ← v + prune(β) a₂``, ``a ← a + prune(βᵀ) v₁``, where each projection
    ``x₁, x₂`` is ``relu(W x)``.

    Args:
        dim: Channels of both streams.
        settings: See :class:`PspSettings`.
    """

    def __init__(self, dim: int, settings: PspSettings) -> None:
        super().__init__()
        self.video_first = nn.Linear(dim, dim, bias=False)
        self.video_second = nn.Linear(dim, dim, bias=False)
        self.audio_first = nn.Linear(dim, dim, bias=False)
        self.audio_second = nn.Linear(dim, dim, bias=False)
        self.video_out = nn.Linear(dim, dim, bias=False)
        self.audio_out = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(settings.dropout)
        self.threshold = settings.threshold
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, audio: Tensor, video: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange between the streams.

        Args:
            audio: (batch, T, dim).
            video: (batch, T, dim).
            valid: (batch, T) bool; segments that do not exist pass nothing on.

        Returns:
            Both streams (batch, T, dim).
        """
        audio_first, audio_second = self._act(self.audio_first(audio)), self._act(self.audio_second(audio))
        video_first, video_second = self._act(self.video_first(video)), self._act(self.video_second(video))
        affinity = torch.relu(video_second @ audio_first.transpose(1, 2) / video.shape[-1] ** 0.5).float()
        pairs = valid[:, :, None] & valid[:, None, :]
        affinity = torch.where(pairs, affinity, 0.0)
        to_video = prune(affinity, self.threshold).to(audio)
        to_audio = prune(affinity.transpose(1, 2), self.threshold).to(audio)
        heard, seen = audio + to_audio @ video_first, video + to_video @ audio_second
        return self.norm(self._act(self.audio_out(heard))), self.norm(self._act(self.video_out(seen)))

    def _act(self, x: Tensor) -> Tensor:
        acted: Tensor = self.dropout(torch.relu(x))
        return acted


class PspHead(nn.Module):
    """Audio-guided attention, a bidirectional LSTM in each stream, propagation, both averaged into two layers.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of a frame's cells.
        classes: Labels plus one; the last class is background.
        hidden: Width of the attention's first layers.
        settings: See :class:`PspSettings`.

    Attributes:
        unused_parameters: Weights of the authors' module that take no part; the published count includes them.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int, settings: PspSettings
    ) -> None:
        super().__init__()
        self.audio_map = _two_linear(audio_dim)
        self.video_map = _two_linear(video_dim)
        self.attention = AudioGuidedAttention(WIDTH, video_dim, hidden, guidance=settings.guidance)
        self.audio = BidirectionalLSTM(WIDTH, WIDTH)
        self.video = BidirectionalLSTM(WIDTH, WIDTH)
        self.propagation = Propagation(2 * WIDTH, settings)
        self.hidden = nn.Linear(2 * WIDTH, 64, bias=False)
        self.classes = nn.Linear(64, classes, bias=False)
        for layer in (self.hidden, self.classes):
            nn.init.xavier_uniform_(layer.weight)
        # A map of the frames to the width of the sound; two classifiers of 28 classes, one for each stream;
        # a classifier of two classes. The weakly supervised program uses some of them.
        frames, streams, pair = (video_dim + 1) * WIDTH, 2 * (256 * 64 + 64 * 28), 257 * 64 + 65 * 2
        self.unused_parameters = frames + streams + pair

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes); the similarity of sound and picture goes into the notes.

        Raises:
            AvtuneError: The preset ``official`` meets a grid that is not 7 x 7.
        """
        valid = existing(encoded)
        audio = self.audio_map(encoded.audio_pooled)
        video = self.video_map(self.attention(audio, cells(encoded)))
        audio, video = self.propagation(self.audio(audio, valid), self.video(video, valid), valid)
        encoded.notes.record(SIMILARITY, F.cosine_similarity(audio.float(), video.float(), dim=-1))
        logits: Tensor = self.classes(torch.relu(self.hidden((audio + video) / 2)))
        return logits


def _two_linear(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 256, bias=False), nn.Linear(256, WIDTH, bias=False))


def build_psp(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> PspHead:
    """The head as a recipe states it."""
    return PspHead(audio_dim, video_dim, classes, config.hidden, psp_settings(config))


def psp_settings(config: HeadConfig) -> PspSettings:
    """The settings of the preset that a recipe names."""
    return choose("preset of psp", config.preset or "paper", PRESETS)


def psp_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy, and the similarity of sound and picture spread over the segments of the event.

    ``CE + λ MSE(s / Σ_t s, y / Σ_t y)`` with ``s = relu(cos(v, a))`` and ``y`` one where there is an event
    (Equations 8 and 9).

    Args:
        logits: (batch, T, classes), background last.
        notes: Holds the similarity (batch, T).
        target: Class indices (batch, T).
        valid: (batch, T) bool; the others count in neither sum.
        config: Names the preset.

    Returns:
        Sum over the valid segments.
    """
    similarity = torch.relu(notes.records[SIMILARITY][-1].float()) * valid
    event = ((target != logits.shape[-1] - 1) & valid).float()
    distance = _share(similarity) - _share(event)
    entropy = F.cross_entropy(logits[valid], target[valid], reduction="sum")
    return entropy + psp_settings(config).similarity_weight * distance[valid].square().sum()


def _share(x: Tensor) -> Tensor:
    return x / (x.sum(dim=-1, keepdim=True) + 1e-8)
