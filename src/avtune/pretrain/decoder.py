"""The decoder of a masked autoencoder for sound and frames, and its reconstruction loss (Equations 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.blocks import PackedBlock, PackedBlocks, new_block
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Layout, Packed, send
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

    Raises:
        AvtuneError: There are no blocks or heads, or the width does not divide among heads and sinusoids.
    """

    def __init__(
        self, dim: int, audio: Stem, video: Stem, *, width: int, depth: int, heads: int, start: DecoderStart
    ) -> None:
        super().__init__()
        if depth < 1 or heads < 1:
            raise AvtuneError(f"decoder_depth is {depth} and decoder_heads {heads}; set each to 1 or more")
        if width < 4 or width % heads or width % 4:
            raise AvtuneError(f"decoder_width is {width}; set it to a multiple of 4 and of its {heads} heads")
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

    def forward(self, joint: Packed, pairing: Pairing) -> Tensor:
        """Decode whole pictures.

        Args:
            joint: Tokens of what was seen, as ``pairing`` joined them, (all tokens, dim).
            pairing: Where they belong.

        Returns:
            Features of every patch, (clips * patches, width): clip by clip the sound's, then the frames'.
        """
        seen = self.embed(joint.tokens)
        clips = len(pairing.lengths)
        length = pairing.audio.length + pairing.video.length
        rows = send(pairing.clip * length + pairing.place, seen.device)
        whole = self.mask_token.type_as(seen).repeat(clips * length, 1).index_copy_(0, rows, seen)
        where = torch.cat(
            [self.audio_positions + self.audio_modality, self.video_positions + self.video_modality]
        )
        tokens = (whole.reshape(clips, length, -1) + where).flatten(0, 1)
        decoded: Packed = self.trunk(Packed(tokens, Layout((length,) * clips, (("plain", clips * length),))))
        return decoded.tokens

    def predict(self, joint: Packed, pairing: Pairing) -> tuple[Tensor, Tensor]:
        """Every patch's values (clips, patches, values), of the sound and of the frames; see :func:`targets`."""
        lengths = [pairing.audio.length, pairing.video.length]
        features = self(joint, pairing).reshape(len(pairing.lengths), sum(lengths), -1)
        audio, video = features.split(lengths, dim=1)
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
        features, sound = self(joint, pairing), pairing.audio.length
        length = sound + pairing.video.length

        def error(pixels: nn.Module, pictures: Tensor, kept: Kept, first: int) -> Tensor:
            hidden = (~kept.visible).nonzero(as_tuple=True)
            clip, position = (send(x, features.device) for x in hidden)
            predicted = pixels(features.index_select(0, clip * length + first + position)).float()
            wanted = targets(pictures, self.patch, clip, position, normalized=normalized)
            return F.mse_loss(predicted, wanted, reduction="sum") / max(wanted.numel(), 1)

        return Reconstruction(
            error(self.audio_pixels, spectrogram, pairing.audio, 0),
            error(self.video_pixels, frames, pairing.video, sound),
        )
