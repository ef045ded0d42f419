"""CAV-MAE: a transformer for each modality, joint layers over both, contrast and reconstruction (Gong et al., 2023)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.backbone import Backbone
from avtune.pretrain.blocks import PackedBlock, PackedBlocks
from avtune.pretrain.contrast import Contrast, Directions
from avtune.pretrain.decoder import Decoder
from avtune.pretrain.masking import Kept, Pattern, draw_kept
from avtune.pretrain.objective import (
    WHOLE,
    Masks,
    PretrainingLoss,
    PretrainingModel,
    Share,
    clip_means,
    combine,
)
from avtune.pretrain.packing import Norm, Packed, pack_together
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.patches import Stem, sinusoids
from avtune.pretrain.siamese import SPECTROGRAM, Streams


@dataclass(frozen=True)
class CavMaeSettings:
    """Settings of CAV-MAE.

    Attributes:
        joint_blocks: Layers over both modalities; the backbone's other blocks are there once for each.
        block_epsilon: Epsilon of all norms; ``None``: the backbone's own.
        audio_ratio: Masking ratio of the sound, in [0, 1).
        video_ratio: Masking ratio of the frames.
        audio_pattern: Which patches of the sound it hides; see :func:`avtune.pretrain.masking.draw_kept`.
        directions: Of the contrastive loss.
        temperature: tau.
        contrastive_weight: Factor of the contrastive loss.
        reconstruction_weight: Factor of the reconstruction loss.
        normalized_targets: Predict patches normalised to mean 0 and variance 1.
        chained_contrast: Take each modality by itself through all joint layers for the contrast. The authors' code
            takes it through the last one only; with one layer these are the same.
        decoder_depth: Blocks of the decoder.
        decoder_width: Its channels.
        decoder_heads: Its attention heads.
    """

    joint_blocks: int = 1
    block_epsilon: float | None = 1e-5
    audio_ratio: float = 0.75
    video_ratio: float = 0.75
    audio_pattern: Pattern = "unstructured"
    directions: Directions = "video_to_audio"
    temperature: float = 0.05
    contrastive_weight: float = 0.01
    reconstruction_weight: float = 1.0
    normalized_targets: bool = True
    chained_contrast: bool = True
    decoder_depth: int = 8
    decoder_width: int = 512
    decoder_heads: int = 16


PRESETS: dict[str, CavMaeSettings] = {
    "paper": CavMaeSettings(),
    "release": CavMaeSettings(chained_contrast=False),
}
"""As published; and with the joint layers of the authors' code, which differs where there are several."""


class CavMaeEncoder(nn.Module):
    """Stems and transformers of both modalities, and the joint layers.

    A joint layer has three pairs of norms: plain ones for both modalities together, and those of each by itself. The
    sinusoidal positions stay as they are until a classifier trains them.

    Args:
        backbone: What it begins from: its first blocks for each modality, its last ones for both.
        settings: See :class:`CavMaeSettings`.
        spectrogram: Mel bands and steps of the sound.

    Raises:
        AvtuneError: More joint layers than the backbone has blocks.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: CavMaeSettings,
        spectrogram: tuple[int, int] = SPECTROGRAM,
    ) -> None:
        super().__init__()
        depth, epsilon = len(backbone.blocks), settings.block_epsilon
        if not 1 <= settings.joint_blocks <= depth:
            raise AvtuneError(
                f"cav_mae has {depth} blocks and cannot join the last {settings.joint_blocks}; set joint_blocks from 1 "
                f"to {depth}"
            )
        self.dim = backbone.dim
        # The sum over RGB, not the mean: a grey picture acts as it did.
        kernel, side = backbone.kernel.sum(dim=1, keepdim=True), backbone.image_size
        self.audio = _stem(backbone, kernel, spectrogram)
        self.video = _stem(backbone, backbone.frame_kernel(), (side, side))
        own, last = backbone.blocks[: -settings.joint_blocks], backbone.blocks[-settings.joint_blocks :]
        self.trunks = nn.ModuleDict(
            {
                modality: PackedBlocks(
                    [PackedBlock(copy.deepcopy(block), ("plain",), epsilon) for block in own], None, ()
                )
                for modality in ("audio", "video")
            }
        )
        norms: tuple[Norm, ...] = ("plain", "audio", "video")
        joint = [PackedBlock(copy.deepcopy(block), norms, epsilon) for block in last]
        self.joint = PackedBlocks(joint, backbone.norm, norms, epsilon)

    def forward(self, spectrogram: Tensor, frames: Tensor, audio: Kept, video: Kept) -> Streams:
        """Both modalities' kept patches behind their own blocks.

        Args:
            spectrogram: (clips, mels, steps).
            frames: (clips, 3, height, width).
            audio: What is seen of the sound.
            video: What is seen of the frames.
        """
        return Streams(
            self.trunks["audio"](self.audio(spectrogram.unsqueeze(1), audio)),
            self.trunks["video"](self.video(frames, video)),
        )

    def alone(self, packed: Packed, norm: Norm) -> Packed:
        """One modality's sequences through the joint layers, under its own norms or the plain ones."""
        through: Packed = self.joint(packed.under(norm))
        return through

    def join(self, streams: Streams, pairing: Pairing) -> Packed:
        """Both modalities through the joint layers, one sequence for each clip, behind the final norm."""
        together: Packed = self.joint(pairing.join(streams.audio, streams.video, "plain"))
        return together

    def join_and_alone(
        self, streams: Streams, pairing: Pairing, *, chained: bool
    ) -> tuple[Packed, Packed, Packed]:
        """What :meth:`join` and, for each modality, :meth:`alone` give, in one call of a layer.

        Args:
            streams: Behind their own blocks.
            pairing: Which tokens belong to one clip.
            chained: Take each modality through all layers, not the last only.
        """
        parts = [
            pairing.join(streams.audio, streams.video, "plain"),
            streams.audio.under("audio"),
            streams.video.under("video"),
        ]
        blocks = list(self.joint.blocks)
        if not chained:
            for block in blocks[:-1]:
                parts[0] = Packed(block(parts[0].tokens, parts[0].layout), parts[0].layout)
            blocks = blocks[-1:]
        together = pack_together(parts)
        x = together.tokens
        for block in blocks:
            x = block(x, together.layout)
        assert self.joint.norm is not None
        tokens = self.joint.norm(x, together.layout).split([len(part.tokens) for part in parts])
        joint, audio, video = (Packed(x, part.layout) for x, part in zip(tokens, parts, strict=True))
        return joint, audio, video

    def embed_audio(self, spectrogram: Tensor) -> Tensor:
        """Features of whole sounds: the mean of their tokens under their own norms, (clips, dim), not normalised."""
        kept = Kept.everything(len(spectrogram), self.audio.length)
        own = self.trunks["audio"](self.audio(spectrogram.unsqueeze(1), kept))
        return clip_means(self.alone(own, "audio"), kept)

    def embed_video(self, frames: Tensor) -> Tensor:
        """Features of frames, one a clip: the mean of their tokens under their own norms, (clips, dim)."""
        kept = Kept.everything(len(frames), self.video.length)
        return clip_means(self.alone(self.trunks["video"](self.video(frames, kept)), "video"), kept)


class CavMae(PretrainingModel):
    """The pretraining objective: both losses from one pass.

    The negatives are the clips of all processes. The authors' code has those of one device only.

    Args:
        backbone: What the encoder begins from.
        settings: See :class:`CavMaeSettings`.
        spectrogram: Mel bands and steps of the sound.

    Raises:
        AvtuneError: A ratio outside of [0, 1), or more joint layers than blocks.
    """

    encoder: CavMaeEncoder
    contrast: Contrast

    def __init__(
        self, backbone: Backbone, settings: CavMaeSettings, spectrogram: tuple[int, int] = SPECTROGRAM
    ) -> None:
        super().__init__()
        for ratio in (settings.audio_ratio, settings.video_ratio):
            if not 0 <= ratio < 1:
                raise AvtuneError(f"cav_mae's masking ratios must lie in [0, 1), not at {ratio:g}")
        self.settings = settings
        self.encoder = CavMaeEncoder(backbone, settings, spectrogram)
        self.contrast = Contrast("softmax", settings.directions, settings.temperature)
        self.decoder = Decoder(
            self.encoder.dim, self.encoder.audio, self.encoder.video, width=settings.decoder_width,
            depth=settings.decoder_depth, heads=settings.decoder_heads, start="mae",
        )  # fmt: skip

    def draw(self, clips: int, generator: torch.Generator, own: Sequence[int] | None = None) -> Masks:
        """As the base class states."""
        settings, encoder = self.settings, self.encoder
        audio, video = (settings.audio_ratio,) * clips, (settings.video_ratio,) * clips
        return Masks(
            draw_kept(audio, encoder.audio.grid, generator, settings.audio_pattern, own=own),
            draw_kept(video, encoder.video.grid, generator, own=own),
        )

    def features(self, spectrogram: Tensor, frames: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """As the base class states: the mean of a clip's tokens behind the joint layers, each modality by itself."""
        return self._encode(spectrogram, frames, masks, Pairing(masks.audio, masks.video))[1:]

    def forward(
        self, spectrogram: Tensor, frames: Tensor, masks: Masks, share: Share = WHOLE
    ) -> PretrainingLoss:
        """As the base class states."""
        settings, pairing = self.settings, Pairing(masks.audio, masks.video)
        joint, audio, video = self._encode(spectrogram, frames, masks, pairing)
        reconstruction = self.decoder.loss(
            joint, pairing, spectrogram.unsqueeze(1), frames, normalized=settings.normalized_targets
        )
        contrasted = self.compare(audio, video, share)
        return combine(
            contrasted, reconstruction, settings.contrastive_weight, settings.reconstruction_weight, share
        )

    def _encode(
        self, spectrogram: Tensor, frames: Tensor, masks: Masks, pairing: Pairing
    ) -> tuple[Packed, Tensor, Tensor]:
        """Joint tokens, and the features of sounds and frames."""
        streams = self.encoder(spectrogram, frames, masks.audio, masks.video)
        joint, audio, video = self.encoder.join_and_alone(
            streams, pairing, chained=self.settings.chained_contrast
        )
        return joint, clip_means(audio, masks.audio), clip_means(video, masks.video)


def _stem(backbone: Backbone, kernel: Tensor, size: tuple[int, int]) -> Stem:
    grid = (size[0] // backbone.patch, size[1] // backbone.patch)
    positions = sinusoids(grid, backbone.dim).to(kernel.device)
    return Stem(
        kernel, backbone.bias, positions, size, "plain",
        before=copy.deepcopy(backbone.before), modality=True, fixed_positions=True,
    )  # fmt: skip
