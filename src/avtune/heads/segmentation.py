"""The segmentation head: four scales of the frames and the sound to a mask for each segment (AVSBench).

What LAVISH (Figure 3b), STG-CMA and CoPL put behind their towers: the AVSBench decoder (Zhou et al., ECCV 2022), with
linear layers in front that bring a transformer's stages to the channels that the decoder was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.mask_decoder import Hearing, MaskDecoder
from avtune.heads.mask_neck import GridNeck, StageNeck
from avtune.heads.segments import existing

SCALES = 4
COARSEST = 32
"""A mask's side is that of the coarsest scale times this."""
AUDIO_WIDTH = 128
PIXELS, SOUNDS = "segmentation pixels", "segmentation sounds"
"""Names under which the notes hold what :func:`matching_divergence` compares, a scale a record."""


@dataclass(frozen=True)
class SegmentationSettings:
    """Settings of the head and its loss.

    Attributes:
        size: Side of the masks, pixels, a multiple of 32: masks are learned, predicted and scored at this resolution.
            The scales have a quarter, an eighth, a sixteenth and a thirty-second of it. AVSBench: 224.
        semantic: Tell which class sounds in a pixel, silence being one; otherwise only whether something does.
        hearing_scales: Scales, from 0 (the finest), at which the pixels hear the sound.
        hearing: What a pixel hears there: the sound of the whole ``clip``, the same in each second, by TPAVI as
            AVSBench; or of its own ``second``, see :class:`avtune.heads.sound_modulation.SoundModulation`.
        matching: Weight of the divergence between what each hearing scale takes from the sound and what the mask
            selects of its pixels, a mean over frames; 0: none.
        channels: Channels of the four scales, the finest first.
        width: Channels within the decoder.
    """

    size: int = 224
    semantic: bool = False
    hearing_scales: tuple[int, ...] = (0, 1, 2, 3)
    hearing: Hearing = "clip"
    matching: float = 0.0
    channels: tuple[int, ...] = (64, 128, 320, 512)
    width: int = 256

    def __post_init__(self) -> None:
        """Refuse what no head can be built from.

        Raises:
            AvtuneError: A value is impossible.
        """
        if self.size < COARSEST or self.size % COARSEST:
            raise AvtuneError(f"head.options.size is {self.size}; set it to a multiple of {COARSEST}")
        known = set(range(SCALES))
        scales = self.hearing_scales
        if not known.issuperset(scales) or len(set(scales)) < len(scales):
            raise AvtuneError(
                f"head.options.hearing_scales is {list(scales)}; list some of {sorted(known)}, each once"
            )
        if self.matching < 0 or (self.matching and not scales):
            raise AvtuneError(
                f"head.options.matching is {self.matching:g}; set it to 0 or more, and above 0 only with "
                "hearing_scales, where the sound is compared"
            )
        if len(self.channels) != SCALES or any(
            type(width) is not int or width < 1 for width in self.channels
        ):
            raise AvtuneError(
                f"head.options.channels is {list(self.channels)}; give {SCALES} whole numbers above 0"
            )
        if self.width < 2 or self.width % 2:
            raise AvtuneError(f"head.options.width is {self.width}; set it to an even number above 0")


S4 = SegmentationSettings()
PRESETS = {
    "s4": S4,
    # AVSBench's code adds 0.5 times the sum over the 20 frames of its batch; a mean does not depend on the batch.
    "ms3": replace(S4, matching=10.0),
    "semantic": replace(S4, semantic=True, matching=0.5),
}
"""AVSBench's settings for its three sets."""


class MaskHead(nn.Module):
    """Stages of the frames and the pooled sound through a neck and the mask decoder.

    Args:
        neck: Gives the four scales.
        audio_dim: Channels of the pooled sound.
        outputs: Channels of the masks.
        settings: See :class:`SegmentationSettings`.

    Attributes:
        unused_parameters: Weights that the authors' modules hold besides and never use: a unit of the decoder, and
            where no scale hears the sound the layer that would bring it there.
    """

    def __init__(self, neck: nn.Module, audio_dim: int, outputs: int, settings: SegmentationSettings) -> None:
        super().__init__()
        self.settings = settings
        self.neck = neck
        self.sound = nn.Linear(audio_dim, AUDIO_WIDTH) if settings.hearing_scales else None
        self.decoder = MaskDecoder(
            settings.channels, outputs=outputs, audio_dim=AUDIO_WIDTH, hearing_scales=settings.hearing_scales,
            hearing=settings.hearing, dim=settings.width,
        )  # fmt: skip
        self.unused_parameters = self.decoder.unused_parameters
        if self.sound is None:
            self.unused_parameters += (audio_dim + 1) * AUDIO_WIDTH

    def forward(self, encoded: Encoded) -> Tensor:
        """Decode the masks of each segment.

        Args:
            encoded: Streams after their towers, with ``video_stages``, of square frames.

        Returns:
            Logits (batch, T, outputs, size, size).
        """
        batch, segments = encoded.video_pooled.shape[:2]
        stages = [tokens[:, encoded.video_prefix :] for tokens in encoded.video_stages]
        sound = encoded.audio_pooled if self.sound is None else self.sound(encoded.audio_pooled)
        valid = None if encoded.valid is None else existing(encoded)
        scales = [scale.unflatten(0, (batch, segments)) for scale in self.neck(stages)]
        masks, pixels, sounds = self.decoder(scales, sound, valid)
        if self.settings.matching:
            for scale, heard in sounds.items():
                encoded.notes.record(PIXELS, pixels[scale])
                encoded.notes.record(SOUNDS, heard)
        logits: Tensor = masks
        return logits


def build_mask_head(
    audio_tower: Tower, video_tower: Tower, frame_size: int, outputs: int, settings: SegmentationSettings
) -> MaskHead:
    """The head for a pair of towers.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames: one with four stages, or a plain vision transformer.
        frame_size: Side of the frames, pixels.
        outputs: Channels of the masks.
        settings: See :class:`SegmentationSettings`.

    Raises:
        AvtuneError: The video tower has another number of stages.
    """
    sides = [settings.size // 4 >> scale for scale in range(SCALES)]
    dims = [video_tower.dims[stage[-1]] for stage in video_tower.stages]
    neck: nn.Module
    if len(dims) == SCALES:
        neck = StageNeck(dims, settings.channels, sides)
    elif len(dims) == 1:
        neck = GridNeck(dims[0], video_tower.grid(frame_size, frame_size)[0], settings.channels, sides)
    else:
        raise AvtuneError(
            f"{video_tower.name} has {len(dims)} stages; masks need {SCALES}, or a plain vision transformer"
        )
    return MaskHead(neck, audio_tower.dim, outputs, settings)


def matching_divergence(logits: Tensor, pixels: Sequence[Tensor], sounds: Sequence[Tensor]) -> Tensor:
    """How far the sound is from the pixels that the mask selects (AVSBench's L_AVM with the Kullback-Leibler form).

    At each scale the pixels, weighed by the predicted mask, are averaged over the frame. Both that and the sound are
    normalised to length 1 and made distributions over channels by a softmax; KL(sound || pixels) is summed over
    channels.

    Args:
        logits: Predicted masks (batch, T, outputs, height, width). With one output the mask is the sigmoid of the
            logits' local means, as in the authors' code; with several it is the share of pixels that are not silent
            (class 0; the authors' code leaves the last class out instead).
        pixels: What the notes hold of each scale, (batch, T, dim, side, side).
        sounds: Likewise, (batch, T, dim).

    Returns:
        (batch, T), the mean over scales.
    """
    silent = logits.shape[2] > 1
    masks = (logits.argmax(dim=2) != 0).to(logits.dtype) if silent else logits[:, :, 0]
    total = torch.zeros(logits.shape[:2], dtype=logits.dtype, device=logits.device)
    for places, sound in zip(pixels, sounds, strict=True):
        height, width = places.shape[-2:]
        local = F.adaptive_avg_pool2d(masks, (height, width))
        weights = local if silent else local.sigmoid()
        selected = (places.to(logits.dtype) * weights.unsqueeze(2)).mean(dim=(-2, -1))
        heard, seen = (F.normalize(vectors.to(logits.dtype), dim=-1) for vectors in (sound, selected))
        total = total + F.kl_div(seen.log_softmax(-1), heard.softmax(-1), reduction="none").sum(-1)
    return total / len(pixels)
