"""The mask decoder of AVSBench (Zhou et al., ECCV 2022): four scales of pixels, the sound, one mask for each frame.

Scales are numbered from the finest, as the stages of a backbone. Each is brought to one width by convolutions that look
far and near at once, may hear the sound (``tpavi.py``, ``sound_modulation.py``), and is joined to the coarser ones from
the coarsest up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from avtune.heads.sound_modulation import SoundModulation
from avtune.heads.tpavi import Tpavi

DILATIONS = (3, 6, 12, 18)
Hearing = Literal["clip", "second"]
HEARING: dict[Hearing, type[Tpavi | SoundModulation]] = {"clip": Tpavi, "second": SoundModulation}
"""How pixels hear, by what they hear."""


class DilatedSum(nn.Module):
    """Sum of 3 x 3 convolutions of four dilations.

    Args:
        in_dim: Channels in.
        dim: Channels out.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_dim, dim, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_dim, height, width) to (batch, dim, height, width)."""
        first, *others = self.branches
        total: Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class ResidualUnit(nn.Module):
    """``x + conv(relu(conv(relu(x))))``.

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(dim, dim, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, height, width) to the same shape."""
        added: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + added


class FusionBlock(nn.Module):
    """Join a scale to what came from the coarser ones, and double the grid (RefineNet).

    Args:
        dim: Channels.
        coarsest: Nothing comes from coarser scales.
    """

    def __init__(self, dim: int, *, coarsest: bool = False) -> None:
        super().__init__()
        self.own = None if coarsest else ResidualUnit(dim)
        self.both = ResidualUnit(dim)

    def forward(self, own: Tensor, coarser: Tensor | None) -> Tensor:
        """Map (batch, dim, height, width), of both, to (batch, dim, 2 height, 2 width)."""
        joined = own if self.own is None or coarser is None else coarser + self.own(own)
        return F.interpolate(self.both(joined), scale_factor=2, mode="bilinear", align_corners=True)


class MaskDecoder(nn.Module):
    """From four scales and the sound to a mask.

    Args:
        dims: Channels of the four scales, the finest first.
        outputs: Channels of the mask: 1 for what sounds, or the number of classes.
        audio_dim: Channels of the sound.
        hearing_scales: Scales, from 0, at which the pixels hear the sound; the papers' adapters need none, since
            the streams have met in the encoder.
        hearing: What they hear: the whole ``clip``, by TPAVI, or their own ``second``.
        dim: Channels within.

    Attributes:
        unused_parameters: Weights that the authors' module holds besides and never uses: a unit of the coarsest
            scale that would take what comes from a coarser one.
    """

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 320, 512),
        *,
        outputs: int = 1,
        audio_dim: int = 128,
        hearing_scales: Sequence[int] = (),
        hearing: Hearing = "clip",
        dim: int = 256,
    ) -> None:
        super().__init__()
        self.enter = nn.ModuleList(DilatedSum(in_dim, dim) for in_dim in dims)
        self.hear = nn.ModuleDict({str(scale): HEARING[hearing](dim, audio_dim) for scale in hearing_scales})
        last = len(dims) - 1
        self.join = nn.ModuleList(FusionBlock(dim, coarsest=scale == last) for scale in range(len(dims)))
        self.reduce = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.refine = nn.Conv2d(dim // 2, 32, 3, padding=1)
        self.mask = nn.Conv2d(32, outputs, 1)
        self.unused_parameters = sum(weight.numel() for weight in self.join[last].parameters())

    def forward(
        self, scales: Sequence[Tensor], audio: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], dict[int, Tensor]]:
        """Decode.

        Args:
            scales: (batch, T, channels, height, width) of each scale, each half as high and wide as the one
                before.
            audio: (batch, T, audio dim).
            valid: Which seconds exist and are heard, (batch, T) bool; ``None``: all.

        Returns:
            Mask logits (batch, T, outputs, 4 height, 4 width) of the finest scale's grid; the entered scales
            (batch, T, dim, height, width) with what they heard; and the sound as each hearing scale sees it.
        """
        batch, segments = scales[0].shape[:2]
        entered, sounds = [], {}
        for number, (scale, enter) in enumerate(zip(scales, self.enter, strict=True)):
            x = enter(scale.flatten(0, 1))
            if str(number) in self.hear:
                places = x.flatten(2).transpose(1, 2).unflatten(0, (batch, segments))
                heard, sounds[number] = self.hear[str(number)](places, audio, valid)
                x = heard.flatten(0, 1).transpose(1, 2).view_as(x)
            entered.append(x)
        joined = None
        for x, join in zip(reversed(entered), reversed(self.join), strict=True):
            joined = join(x, joined)
        finer = F.interpolate(self.reduce(joined), scale_factor=2, mode="bilinear", align_corners=False)
        masks = self.mask(F.relu(self.refine(finer)))
        return (
            masks.unflatten(0, (batch, segments)),
            [x.unflatten(0, (batch, segments)) for x in entered],
            sounds,
        )
