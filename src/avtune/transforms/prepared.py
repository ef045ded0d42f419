"""The tensors of one clip, between preprocessing and batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prepared:
    """One clip, ready to be stacked into a batch.

    Attributes:
        frames: uint8 (T, 3, size, size), resized, not normalised; the mean colour where there is no video.
        spectrogram: float32 (T, rows, columns), normalised, or (1, rows, columns) where all segments hear the same;
            rows are time steps and columns mel bands, or the other way round where the preset says so; zeros where
            there is no sound (a silent track is real data and gives the floor of the log-mel instead).
        has_video: bool ().
        has_audio: bool ().
        valid: bool (T,), which segments exist in the file; the others repeat its last frame.
        notes: What a person should know: padding, missing streams, damage, in words.
    """

    frames: Tensor
    spectrogram: Tensor
    has_video: Tensor
    has_audio: Tensor
    valid: Tensor
    notes: tuple[str, ...] = ()
