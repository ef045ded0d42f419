"""DG-SCT's event localization: the temporal part of its guidance, and CMBS's answer (Duan et al., NeurIPS 2023).

Both are CMBS's from recurrence on. What is in front differs: where CMBS attends over the cells of a frame, the
last layer's spatial maps have done so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.fusion.dg_sct import AUDIO_MAP, VIDEO_MAP, sum_up
from avtune.heads.cmbs import CmbsHead, CmbsSettings
from avtune.heads.cmbs_layers import weight_count
from avtune.options import choose

AUDIO_WIDTH = 128


@dataclass(frozen=True)
class DgSctHeadSettings(CmbsSettings):
    """Settings of DG-SCT's head: CMBS's, of which ``alpha`` is DG-SCT's γ and ``beta`` is not read.

    Attributes:
        interact: Whether the streams ask each other once more before the answer, as CMBS does. The authors' code
            computes that and then answers from what was before it.
    """

    interact: bool = True


PRESETS = {
    "paper": DgSctHeadSettings(),
    "official": DgSctHeadSettings(gate_loss="logit", interact=False),
}
"""Under the names of CMBS's presets, whose loss reads how it takes the gate."""


class DgSctHead(CmbsHead):
    """Both streams summed up by their spatial maps, read through time, each gating the other; then CMBS's answer.

    Behind another method, which leaves no maps, both streams are pooled as their towers do.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of the frames.
        classes: Labels plus one; the last class is background.
        hidden: Channels to which the frames are reduced.
        settings: See :class:`DgSctHeadSettings`.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int, settings: DgSctHeadSettings
    ) -> None:
        super().__init__(AUDIO_WIDTH, video_dim, classes, hidden, settings)
        self.audio_reduce = nn.Linear(audio_dim, AUDIO_WIDTH)
        self.attention = OneCell()  # type: ignore[assignment]
        if not settings.interact:
            self.unused_parameters += weight_count(self.audio_interaction) + weight_count(
                self.video_interaction
            )
            self.audio_interaction = self.video_interaction = AsItIs()  # type: ignore[assignment]

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, T, classes); relevance, gates and class scores go into the notes."""
        audio, video = self.pooled(encoded)
        cell = video.flatten(0, 1).unsqueeze(1)
        pooled = {"audio_pooled": self.audio_reduce(audio), "video_pooled": video}
        return super().forward(replace(encoded, video=cell, video_prefix=0, **pooled))

    def pooled(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """The sum of each frame's tokens under the last spatial map, both (batch, T, dim)."""
        audio = sum_up(encoded.audio, AUDIO_MAP, encoded.notes)
        video = sum_up(encoded.video, VIDEO_MAP, encoded.notes)
        return (
            encoded.audio_pooled if audio is None else audio.view_as(encoded.audio_pooled),
            encoded.video_pooled if video is None else video.view_as(encoded.video_pooled),
        )

    def _unused(self, hidden: int) -> int:
        # CMBS's attention over cells, and what is unused in it, is not here.
        return super()._unused(hidden) - (hidden + 1) * (hidden // 2)


class OneCell(nn.Module):
    """The frame is one cell already."""

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """(batch, T, 1, dim) to (batch, T, dim)."""
        return video.squeeze(-2)


class AsItIs(nn.Module):
    """No interaction."""

    def forward(self, x: Tensor, other: Tensor, valid: Tensor) -> Tensor:
        """``x``, (batch, T, dim)."""
        return x


def build_dg_sct_head(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> DgSctHead:
    """The head as a recipe states it."""
    settings = choose("preset of dg_sct", config.preset or "paper", PRESETS)
    return DgSctHead(audio_dim, video_dim, classes, config.hidden, settings)
