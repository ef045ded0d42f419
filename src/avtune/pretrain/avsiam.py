"""AVSiam: one vision transformer for sound and frames, pretrained by contrast and reconstruction (Lin et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from avtune.errors import AvtuneError
from avtune.pretrain.backbone import Backbone
from avtune.pretrain.contrast import Contrast, Directions, Kind
from avtune.pretrain.decoder import Decoder, DecoderStart, Reconstruction
from avtune.pretrain.masking import Assignment, Kept, Pattern, draw_kept, draw_ratios
from avtune.pretrain.objective import (
    WHOLE,
    Masks,
    PretrainingLoss,
    PretrainingModel,
    Share,
    clip_means,
    combine,
)
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.siamese import SPECTROGRAM, Encoders, JointStart, SiameseEncoder, Streams


@dataclass(frozen=True)
class AvsiamSettings:
    """Settings of AVSiam and of the models it is compared with.

    Attributes:
        encoders: ``shared``: one transformer for both modalities. ``separate``: one for each (AVSep, Table 5).
        doubled_embeddings: Add each embedding to itself before the first block, as the released code does without
            meaning to. Weights that were trained so need it.
        block_epsilon: Epsilon of the blocks' norms; ``None``: the backbone's own.
        audio_ratios: Masking ratios of the sound, each in [0, 1); one: fixed-ratio masking.
        video_ratios: Masking ratios of the frames, drawn independently of the sound's.
        assignment: How clips get their ratio; see :func:`avtune.pretrain.masking.draw_ratios`.
        audio_pattern: Which patches of the sound a ratio hides; see :func:`avtune.pretrain.masking.draw_kept`.
            Those of the frames are hidden without a pattern.
        contrast: ``none``, or the contrastive loss; see :class:`avtune.pretrain.contrast.Contrast`.
        directions: Of the softmax.
        temperature: tau of the softmax.
        contrastive_weight: Factor of the contrastive loss.
        reconstruction: ``same_pass``: what the contrastive pass hid is predicted from what it saw. ``own_pass``: a
            second pass hides ``reconstruction_ratio`` of both, without a pattern. ``none``.
        reconstruction_ratio: Masking ratio of the second pass.
        reconstruction_encoder: Of the sound in the second pass: the ``shared`` one, or a ``copy`` of the transformer
            with norms of its own, which only this loss trains.
        reconstruction_weight: Factor of the reconstruction loss.
        stop_gradient: Keep the reconstruction loss from training the encoder (appendix A).
        normalized_targets: Predict patches normalised to mean 0 and variance 1.
        joint_blocks: Multimodal layers over the tokens of both.
        joint_start: They begin as the transformer's ``last_blocks``, or all as copies of its last one
            (``last_block``).
        decoder_depth: Blocks of the decoder.
        decoder_width: Its channels.
        decoder_heads: Its attention heads.
        decoder_start: See :class:`avtune.pretrain.decoder.Decoder`.
    """

    encoders: Encoders = "shared"
    doubled_embeddings: bool = False
    block_epsilon: float | None = None
    audio_ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    video_ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assignment: Assignment = "even"
    audio_pattern: Pattern = "unstructured"
    contrast: Kind | Literal["none"] = "softmax"
    directions: Directions = "audio_to_video"
    temperature: float = 0.05
    contrastive_weight: float = 1.0
    reconstruction: Literal["same_pass", "own_pass", "none"] = "same_pass"
    reconstruction_ratio: float = 0.75
    reconstruction_encoder: Literal["shared", "copy"] = "shared"
    reconstruction_weight: float = 1.0
    stop_gradient: bool = True
    normalized_targets: bool = False
    joint_blocks: int = 2
    joint_start: JointStart = "last_blocks"
    decoder_depth: int = 6
    decoder_width: int = 512
    decoder_heads: int = 16
    decoder_start: DecoderStart = "mae"


_PAPER = AvsiamSettings()
_RELEASE = AvsiamSettings(
    doubled_embeddings=True,
    block_epsilon=1e-5,
    audio_ratios=(0.0, 0.2, 0.4, 0.6, 0.8),
    video_ratios=(0.0, 0.2, 0.4, 0.6, 0.8),
    assignment="chunks",
    audio_pattern="time_frequency",
    directions="both",
    reconstruction="own_pass",
    reconstruction_encoder="copy",
    stop_gradient=False,
    joint_start="last_block",
    decoder_depth=8,
    decoder_start="zeros",
)
_FIFTHS = (0.0, 0.1, 0.2, 0.3, 0.4)
PRESETS: dict[str, AvsiamSettings] = {
    "paper": _PAPER,
    "release": _RELEASE,
    "published": replace(
        _RELEASE,
        audio_ratios=_FIFTHS,
        video_ratios=_FIFTHS,
        reconstruction_encoder="shared",
        stop_gradient=True,
        joint_start="last_blocks",
        decoder_depth=6,
    ),
    "avsep": replace(_PAPER, encoders="separate"),
    "contrastive": replace(_PAPER, reconstruction="none"),
    "fixed_ratio": replace(_PAPER, reconstruction="none", audio_ratios=(0.25,), video_ratios=(0.25,)),
    "unmasked": replace(_PAPER, reconstruction="none", audio_ratios=(0.0,), video_ratios=(0.0,)),
}
"""Named settings: the paper's text; the released code; what the published weights were made by; and the paper's
comparisons: separate encoders (Table 5); the contrastive loss alone (Tables 4 and 8), with one masking ratio and
without masking (Table 4). A shared AST (Table 6) is another backbone."""


class Avsiam(PretrainingModel):
    """The pretraining objective: :class:`avtune.pretrain.siamese.SiameseEncoder`, contrast and decoder.

    Args:
        backbone: What the encoder begins from.
        settings: See :class:`AvsiamSettings`.
        spectrogram: Mel bands and steps of the sound.

    Raises:
        AvtuneError: Settings that contradict each other.
    """

    encoder: SiameseEncoder

    def __init__(
        self, backbone: Backbone, settings: AvsiamSettings, spectrogram: tuple[int, int] = SPECTROGRAM
    ) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.encoder = SiameseEncoder(
            backbone,
            spectrogram,
            encoders=settings.encoders,
            second_sound=settings.reconstruction_encoder == "copy",
            doubled=settings.doubled_embeddings,
            block_epsilon=settings.block_epsilon,
            joint_blocks=settings.joint_blocks,
            joint_start=settings.joint_start,
        )
        self.contrast = None
        if settings.contrast != "none":
            self.contrast = Contrast(settings.contrast, settings.directions, settings.temperature)
        self.decoder: Decoder | None = None
        if settings.reconstruction == "none":
            # The multimodal layers wait for fine-tuning; data-parallel training stops at weights without a gradient.
            self.encoder.joint.requires_grad_(False)
        else:
            self.decoder = Decoder(
                self.encoder.dim,
                self.encoder.audio,
                self.encoder.video,
                width=settings.decoder_width,
                depth=settings.decoder_depth,
                heads=settings.decoder_heads,
                start=settings.decoder_start,
            )

    def draw(self, clips: int, generator: torch.Generator, own: Sequence[int] | None = None) -> Masks:
        """As the base class states; every clip of the update gets its ratios, and the wanted ones their patches."""
        settings, audio_grid, video_grid = self.settings, self.encoder.audio.grid, self.encoder.video.grid
        audio_ratios = draw_ratios(clips, settings.audio_ratios, settings.assignment, generator)
        video_ratios = draw_ratios(clips, settings.video_ratios, settings.assignment, generator)
        audio = draw_kept(audio_ratios, audio_grid, generator, settings.audio_pattern, own=own)
        video = draw_kept(video_ratios, video_grid, generator, own=own)
        if settings.reconstruction != "own_pass":
            return Masks(audio, video)
        ratios = (settings.reconstruction_ratio,) * clips
        second = (
            draw_kept(ratios, audio_grid, generator, own=own),
            draw_kept(ratios, video_grid, generator, own=own),
        )
        return Masks(audio, video, second)

    def features(self, spectrogram: Tensor, frames: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """As the base class states: the mean of a clip's tokens behind the final norm."""
        return _features(self.encoder(spectrogram, frames, masks.audio, masks.video), masks)

    def forward(
        self, spectrogram: Tensor, frames: Tensor, masks: Masks, share: Share = WHOLE
    ) -> PretrainingLoss:
        """As the base class states."""
        contrasted = reconstruction = None
        if self.contrast is not None or self.settings.reconstruction == "same_pass":
            streams = self.encoder(spectrogram, frames, masks.audio, masks.video)
            if self.contrast is not None:
                contrasted = self.compare(*_features(streams, masks), share)
            if self.settings.reconstruction == "same_pass":
                reconstruction = self._reconstruct(streams, spectrogram, frames, masks.audio, masks.video)
        if masks.reconstruction is not None:
            copied = self.settings.reconstruction_encoder == "copy"
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.settings.stop_gradient):
                own = self.encoder(spectrogram, frames, *masks.reconstruction, second_sound=copied)
            reconstruction = self._reconstruct(own, spectrogram, frames, *masks.reconstruction)
        return combine(
            contrasted,
            reconstruction,
            self.settings.contrastive_weight,
            self.settings.reconstruction_weight,
            share,
        )

    def _reconstruct(
        self, streams: Streams, spectrogram: Tensor, frames: Tensor, audio: Kept, video: Kept
    ) -> Reconstruction:
        """Equations 2 and 3: predict what ``audio`` and ``video`` hide from what the encoder saw."""
        assert self.decoder is not None
        pairing = Pairing(audio, video)
        joint = self.encoder.join(streams.detached() if self.settings.stop_gradient else streams, pairing)
        return self.decoder.loss(
            joint, pairing, spectrogram.unsqueeze(1), frames, normalized=self.settings.normalized_targets
        )


def _features(streams: Streams, masks: Masks) -> tuple[Tensor, Tensor]:
    return clip_means(streams.audio, masks.audio), clip_means(streams.video, masks.video)


def _check(settings: AvsiamSettings) -> None:
    ratios = (*settings.audio_ratios, *settings.video_ratios, settings.reconstruction_ratio)
    numbers = all(isinstance(ratio, int | float) and 0 <= ratio < 1 for ratio in ratios)
    if not numbers or not settings.audio_ratios or not settings.video_ratios:
        raise AvtuneError(
            f"avsiam's masking ratios are {settings.audio_ratios}, {settings.video_ratios} and "
            f"{settings.reconstruction_ratio}; each must lie in [0, 1), and each modality needs one"
        )
    if settings.reconstruction_encoder == "copy" and (
        settings.encoders == "separate"
        or settings.reconstruction != "own_pass"
        or settings.contrast == "none"
        or settings.stop_gradient
    ):
        raise AvtuneError(
            "avsiam's reconstruction_encoder copy needs encoders shared, reconstruction own_pass, a contrast and no "
            "stop_gradient; set them, or choose reconstruction_encoder shared"
        )
    if settings.contrast == "none" and settings.reconstruction == "none":
        raise AvtuneError(
            "avsiam without contrast and reconstruction has nothing to learn; choose one of them"
        )
    if settings.contrast == "none" and settings.stop_gradient:
        raise AvtuneError(
            "avsiam with contrast none and stop_gradient teaches its encoder nothing; set stop_gradient to false, or "
            "choose a contrast"
        )
