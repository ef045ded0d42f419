"""The decoder of a masked autoencoder for sound and frames, and its reconstruction loss (Equations 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.pretrain.blocks import PackedBlock, PackedBlocks, new_block
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Layout, Packed
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.patches import Stem, sinusoids, targets

DecoderStart = Literal["mae", "zeros"]


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction losses, scalars: mean over hidden patches of the mean squared error of their values.

    Attributes:
        audio: Of the sound; 0 where nothing of it is hidden.
        video: Of the frames.
    """

    audio: Tensor
    video: Tensor


class Decoder(nn.Module):
    """Predicts what was hidden of a clip from the joint tokens of what was seen.

    Args:
        dim: Channels of the joint tokens.
        audio: The sound's stem, for its grid and patches.
        video: The frames' stem.
        width: Channels of the decoder.
        depth: Blocks.
        heads: Attention heads of a block.
        start: ``mae``: fixed sinusoidal positions, mask token and modality vectors random. ``zeros``: positions,
            mask token and modality vectors are learned and begin at zero, as AVSiam's released code.
    """

    def __init__(
        self, dim: int, audio: Stem, video: Stem, *, width: int, depth: int, heads: int, start: DecoderStart
    ) -> None:
        super().__init__()
        place = audio.weight.device
        self.embed = nn.Linear(dim, width, device=place)
        self.mask_token = nn.Parameter(torch.zeros(width, device=place))
        self.audio_modality = nn.Parameter(torch.zeros(width, device=place))
        self.video_modality = nn.Parameter(torch.zeros(width, device=place))
        tables = [torch.zeros(stem.length, width, device=place) for stem in (audio, video)]
        if start == "mae":
            for vector in (self.mask_token, self.audio_modality, self.video_modality):
                nn.init.normal_(vector, std=0.02)
            tables = [sinusoids(stem.grid, width).to(place) for stem in (audio, video)]
        self.audio_positions, self.video_positions = (
            nn.Parameter(table, requires_grad=start == "zeros") for table in tables
        )
        blocks = (PackedBlock(new_block(width, heads, place), ("plain",)) for _ in range(depth))
        self.trunk = PackedBlocks(blocks, nn.LayerNorm(width, device=place), ("plain",))
        self.audio_pixels = nn.Linear(width, audio.channels * audio.patch**2, device=place)
        self.video_pixels = nn.Linear(width, video.channels * video.patch**2, device=place)
        self.patch = audio.patch

    def forward(self, joint: Packed, pairing: Pairing) -> tuple[Tensor, Tensor]:
        """Decode whole pictures.

        Args:
            joint: Tokens of what was seen, as ``pairing`` joined them, (all tokens, dim).
            pairing: Where they belong.

        Returns:
            Features of every patch of the sound (clips, patches, width) and of the frames.
        """
        seen = self.embed(joint.tokens)
        clips, sound = len(pairing.lengths), pairing.audio.length
        length = sound + pairing.video.length
        whole = self.mask_token.type_as(seen).expand(clips, length, -1).clone()
        clip, place = (x.to(seen.device, non_blocking=True) for x in (pairing.clip, pairing.place))
        whole = whole.index_put((clip, place), seen)
        where = torch.cat(
            [self.audio_positions + self.audio_modality, self.video_positions + self.video_modality]
        )
        layout = Layout((length,) * clips, (("plain", clips * length),))
        decoded = self.trunk(Packed((whole + where).flatten(0, 1), layout))
        features = decoded.tokens.unflatten(0, (clips, length))
        return features[:, :sound], features[:, sound:]

    def predict(self, joint: Packed, pairing: Pairing) -> tuple[Tensor, Tensor]:
        """Every patch's values (clips, patches, values), of the sound and of the frames; see :func:`targets`."""
        audio, video = self(joint, pairing)
        return self.audio_pixels(audio), self.video_pixels(video)

    def loss(
        self, joint: Packed, pairing: Pairing, spectrogram: Tensor, frames: Tensor, *, normalized: bool
    ) -> Reconstruction:
        """How far the prediction of what was hidden is from what was there.

        Args:
            joint: As for :meth:`forward`.
            pairing: As for :meth:`forward`.
            spectrogram: (clips, 1, mels, steps), the values that the encoder saw part of.
            frames: (clips, 3, height, width).
            normalized: Compare with normalised patches; see :func:`targets`.
        """
        audio, video = self(joint, pairing)
        return Reconstruction(
            self._error(self.audio_pixels, audio, spectrogram, pairing.audio, normalized),
            self._error(self.video_pixels, video, frames, pairing.video, normalized),
        )

    def _error(
        self, pixels: nn.Module, features: Tensor, pictures: Tensor, kept: Kept, normalized: bool
    ) -> Tensor:
        hidden = (~kept.visible).nonzero(as_tuple=True)
        clip, position = (x.to(features.device, non_blocking=True) for x in hidden)
        predicted = pixels(features[clip, position]).float()
        wanted = targets(pictures, self.patch, clip, position, normalized=normalized)
        return F.mse_loss(predicted, wanted, reduction="sum") / max(wanted.numel(), 1)
