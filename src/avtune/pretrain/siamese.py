"""One transformer for sound and frames, or one for each, and the multimodal layers over both (AVSiam, section 3.1).

Patch embeddings, positions and layer norms belong to a modality; attention and MLPs are shared. All kept tokens of
both modalities of a batch go through each shared layer in one call (:mod:`avtune.pretrain.packing`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.backbone import Backbone
from avtune.pretrain.blocks import PackedBlock, PackedBlocks
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import clip_means
from avtune.pretrain.packing import Norm, Packed, pack_together
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.patches import Stem

SPECTROGRAM = (128, 1024)
"""Mel bands and steps of ten seconds of sound, as the sound presets ``avsiam`` and ``cav_mae`` give them."""
Modality = Literal["audio", "video"]
Encoders = Literal["shared", "separate"]
JointStart = Literal["last_blocks", "last_block"]


@dataclass(frozen=True)
class Streams:
    """Both modalities behind their final norms, packed as their masks say.

    Attributes:
        audio: Tokens of the sound.
        video: Tokens of the frames.
    """

    audio: Packed
    video: Packed

    def detached(self) -> Streams:
        """The same without a gradient."""
        audio, video = (replace(part, tokens=part.tokens.detach()) for part in (self.audio, self.video))
        return Streams(audio, video)


class SiameseEncoder(nn.Module):
    """Stems of both modalities, the transformers behind them, and the multimodal layers.

    Args:
        backbone: What it begins from; its blocks are copied.
        spectrogram: Mel bands and steps of the sound.
        encoders: ``shared``: one transformer with norms for each modality; ``separate``: one for each.
        second_sound: Have a further copy of the transformer, with norms of its own, for the sound of a
            reconstruction pass, as AVSiam's released code; its stem is that of the sound.
        doubled: Add each embedding to itself; see :class:`avtune.pretrain.patches.Stem`.
        block_epsilon: Epsilon of the blocks' norms; ``None``: the backbone's own.
        joint_blocks: Multimodal layers, from 1.
        joint_start: They begin as the transformer's ``last_blocks``, or all as copies of its last one.

    Raises:
        AvtuneError: More multimodal layers than there are blocks to begin from.
    """

    def __init__(
        self,
        backbone: Backbone,
        spectrogram: tuple[int, int] = SPECTROGRAM,
        *,
        encoders: Encoders = "shared",
        second_sound: bool = False,
        doubled: bool = False,
        block_epsilon: float | None = None,
        joint_blocks: int = 2,
        joint_start: JointStart = "last_blocks",
    ) -> None:
        super().__init__()
        depth = len(backbone.blocks)
        if joint_blocks < 1 or (joint_start == "last_blocks" and joint_blocks > depth):
            raise AvtuneError(
                f"{joint_blocks} multimodal layers cannot begin as the last of {depth} blocks; set joint_blocks from 1 "
                f"to {depth}"
            )
        self.encoders, self.dim, self.prefix = encoders, backbone.dim, backbone.prefix
        grid = (spectrogram[0] // backbone.patch, spectrogram[1] // backbone.patch)
        self.audio = Stem(
            backbone.sound_kernel(), backbone.bias, backbone.sound_positions(grid), spectrogram, "audio",
            before=copy.deepcopy(backbone.before), doubled=doubled,
        )  # fmt: skip
        self.video = Stem(
            backbone.frame_kernel(), backbone.bias, backbone.frame_positions(), (backbone.image_size,) * 2,
            "video", before=copy.deepcopy(backbone.before), doubled=doubled,
        )  # fmt: skip
        kinds: dict[str, tuple[Norm, ...]] = {"shared": ("audio", "video")}
        if encoders == "separate":
            kinds = {"audio": ("audio",), "video": ("video",)}
        if second_sound:
            kinds["second_sound"] = ("plain",)
        self.trunks = nn.ModuleDict(
            {name: _trunk(backbone, norms, block_epsilon) for name, norms in kinds.items()}
        )
        starts = backbone.blocks[-joint_blocks:]
        if joint_start == "last_block":
            starts = backbone.blocks[-1:] * joint_blocks
        # The released code runs both modalities through the sound's norms here, so that there are no others.
        joint = [PackedBlock(copy.deepcopy(block), ("audio",), block_epsilon) for block in starts]
        self.joint = PackedBlocks(joint, None, ())

    def forward(
        self, spectrogram: Tensor, frames: Tensor, audio: Kept, video: Kept, *, second_sound: bool = False
    ) -> Streams:
        """Both modalities' kept patches behind the transformer and its final norms.

        Args:
            spectrogram: (clips, mels, steps).
            frames: (clips, 3, height, width).
            audio: What is seen of the sound.
            video: What is seen of the frames.
            second_sound: Let the further copy hear the sound.
        """
        sound, sight = self.audio(spectrogram.unsqueeze(1), audio), self.video(frames, video)
        if second_sound:
            return Streams(self.trunks["second_sound"](sound.under("plain")), self._trunk("video")(sight))
        if self.encoders == "separate":
            return Streams(self._trunk("audio")(sound), self._trunk("video")(sight))
        both = self.trunks["shared"](pack_together([sound, sight]))
        heard, seen = both.tokens.split([len(audio), len(video)])
        return Streams(Packed(heard, sound.layout), Packed(seen, sight.layout))

    def embed_audio(self, spectrogram: Tensor) -> Tensor:
        """Features of whole sounds (clips, mels, steps): the mean of their tokens, (clips, dim), not normalised."""
        kept = Kept.everything(len(spectrogram), self.audio.length)
        return clip_means(self._trunk("audio")(self.audio(spectrogram.unsqueeze(1), kept)), kept)

    def embed_video(self, frames: Tensor) -> Tensor:
        """Features of frames (clips, 3, height, width): the mean of their tokens, (clips, dim), not normalised."""
        kept = Kept.everything(len(frames), self.video.length)
        return clip_means(self._trunk("video")(self.video(frames, kept)), kept)

    def join(self, streams: Streams, pairing: Pairing) -> Packed:
        """Both modalities through the multimodal layers, one sequence for each clip; no norm behind them."""
        together: Packed = self.joint(pairing.join(streams.audio, streams.video, "audio"))
        return together

    def _trunk(self, modality: Modality) -> nn.Module:
        return self.trunks["shared" if self.encoders == "shared" else modality]


def _trunk(backbone: Backbone, norms: tuple[Norm, ...], epsilon: float | None) -> PackedBlocks:
    blocks = [PackedBlock(copy.deepcopy(block), norms, epsilon) for block in backbone.blocks]
    return PackedBlocks(blocks, backbone.norm, norms)
