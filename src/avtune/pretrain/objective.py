"""What every pretraining objective gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from avtune.pretrain.contrast import Contrasted
from avtune.pretrain.decoder import Reconstruction
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Packed, sequence_means


@dataclass(frozen=True)
class PretrainingLoss:
    """The losses of one step, scalars; all of them in one backward.

    Attributes:
        total: Their weighted sum. With gradients averaged over processes it is the loss of all their clips.
        contrastive: Unweighted; ``None`` where the objective has none.
        accuracy: Share of clips whose partner is the nearest of all processes' clips, for the log.
        audio_reconstruction: Unweighted.
        video_reconstruction: Unweighted.
    """

    total: Tensor
    contrastive: Tensor | None = None
    accuracy: Tensor | None = None
    audio_reconstruction: Tensor | None = None
    video_reconstruction: Tensor | None = None


@dataclass(frozen=True)
class Masks:
    """What the passes of one step see.

    Attributes:
        audio: Of the sound.
        video: Of the frames.
        reconstruction: Of sound and frames in a pass of its own for the reconstruction, where there is one.
    """

    audio: Kept
    video: Kept
    reconstruction: tuple[Kept, Kept] | None = None


class PretrainingModel(Protocol):
    """What a training loop needs of an objective."""

    def draw(self, clips: int, generator: torch.Generator) -> Masks:
        """What a step sees of ``clips`` clips; chance comes from ``generator`` alone, on the CPU."""
        ...

    def __call__(self, spectrogram: Tensor, frames: Tensor, masks: Masks) -> PretrainingLoss:
        """The losses of clips with both modalities: (clips, mels, steps) and (clips, 3, height, width)."""
        ...


def combine(
    contrasted: Contrasted | None,
    reconstruction: Reconstruction | None,
    contrastive_weight: float,
    reconstruction_weight: float,
) -> PretrainingLoss:
    """The weighted sum of what there is; the reconstruction is that of the sound plus that of the frames."""
    parts = []
    if contrasted is not None:
        parts.append(contrastive_weight * contrasted.loss)
    if reconstruction is not None:
        parts.append(reconstruction_weight * (reconstruction.audio + reconstruction.video))
    return PretrainingLoss(
        torch.stack(parts).sum(),
        None if contrasted is None else contrasted.loss.detach(),
        None if contrasted is None else contrasted.accuracy,
        None if reconstruction is None else reconstruction.audio.detach(),
        None if reconstruction is None else reconstruction.video.detach(),
    )


def clip_means(packed: Packed, kept: Kept) -> Tensor:
    """The mean of each clip's tokens, (clips, dim) in the order of the batch."""
    means = sequence_means(packed)
    return means[kept.place.to(means.device, non_blocking=True)]
