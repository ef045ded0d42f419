"""HTS-AT (Chen et al., 2022): a Swin transformer over a spectrogram that is folded into a square."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones.pretrained import load_published
from avtune.backbones.swin import SwinTower
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError, Positions, Resampling

MELS, STEPS, SIDE = 64, 1024, 256
CLASSES = 527
DEPTHS = (2, 2, 6, 2)
HTSAT_FILE = "HTSAT_AudioSet_Saved_1.ckpt"
HTSAT_SOURCE = "the checkpoints that github.com/RetroCirce/HTS-Audio-Transformer links to"
# Fourier and mel filters (avtune's own front end takes their place), class head, and tables that are computed.
NOT_NEEDED = re.compile(
    r"spectrogram_extractor\.stft\.conv_(real|imag)\.weight"
    r"|logmel_extractor\.melW"
    r"|(tscam_conv|head)\.(weight|bias)"
    r"|layers\.\d+\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)"
)
DOWNSAMPLE = re.compile(r"layers\.(\d+)\.downsample\.(.+)")


class HTSATTower(SwinTower):
    """An HTS-AT; pictures are log-mel spectrograms in decibels, time as rows and 64 mel bands as columns.

    ``place`` normalises each band with the statistics that were learnt, stretches up to 1024 frames to 1024,
    and folds them into a square of 256: four stretches of time above each other, each with bands as rows.
    """

    audio_preset = "dg_sct"
    any_size = True

    def _trained_size(self) -> tuple[int, int]:
        return STEPS, MELS

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`Tower.grid`; the square has the same grid however long the sound is."""
        side = SIDE // self.patch_size
        return side, side

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """See :meth:`Tower.place`; there is no learned position table, so nothing is resampled."""
        self._require_own_size(*images.shape[-2:])
        normalised = self.model.mel_norm(images.transpose(1, 3)).transpose(1, 3)
        tokens: Tensor = self.model.patch_embed(fold(normalised)).flatten(1, 2)
        return tokens, None

    def _require_own_size(self, height: int, width: int) -> None:
        if not 1 <= height <= STEPS or width != MELS:
            raise BackboneError(
                f"{self.name} takes spectrograms of up to {STEPS} frames (rows) by {MELS} mel bands (columns), "
                f"not {height}x{width}; set input.audio.preset=dg_sct"
            )


def fold(spectrogram: Tensor) -> Tensor:
    """Fold a long picture into a square.

    Args:
        spectrogram: (batch, 1, frames, 64), at most 1024 frames; fewer are stretched to 1024, bicubically
            with corners aligned.

    Returns:
        (batch, 1, 256, 256): row ``64 * k + m`` and column t hold band m of frame ``256 * k + t``.
    """
    if spectrogram.shape[2] < STEPS:
        spectrogram = nn.functional.interpolate(
            spectrogram, (STEPS, spectrogram.shape[3]), mode="bicubic", align_corners=True
        )
    batch, channels, frames, bands = spectrogram.shape
    stretches = spectrogram.reshape(batch, channels, frames // SIDE, SIDE, bands)
    return stretches.transpose(3, 4).flatten(2, 3)


def build_htsat(depth: int | None, device: torch.device | str | None) -> Any:
    """The Swin transformer of HTS-AT with the norm over mel bands that stands before it, random weights.

    Args:
        depth: Blocks of each stage to keep.
        device: Where it is built.
    """
    depths = DEPTHS if depth is None else tuple(min(depth, blocks) for blocks in DEPTHS)
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=SIDE,
        in_chans=1,
        num_classes=0,
        embed_dim=96,
        depths=depths,
        num_heads=(4, 8, 16, 32),
        window_size=8,
        device=device,
    )
    model.mel_norm = nn.BatchNorm2d(MELS, device=device)
    return model


def load_htsat(model: Any, path: Path, name: str) -> None:
    """Load the HTS-AT authors' checkpoint, ``HTSAT_AudioSet_Saved_1.ckpt`` or one of its form.

    Its ``state_dict`` has keys ``sed_model.<name>``; patches are merged at the end of a stage there, at the
    beginning of the next one here. Front end filters, class head and computed tables are left out.

    Args:
        model: What :func:`build_htsat` made.
        path: The file.
        name: The tower's name, for messages.

    Raises:
        BackboneError: The file is missing, unreadable, or not an HTS-AT of this size.
    """

    def rename(key: str) -> str | None:
        own = key.removeprefix("sed_model.")
        if NOT_NEEDED.fullmatch(own):
            return None
        if own.startswith("bn0."):
            return f"mel_norm.{own.removeprefix('bn0.')}"
        if merging := DOWNSAMPLE.fullmatch(own):
            return f"layers.{int(merging[1]) + 1}.downsample.{merging[2]}"
        return own

    load_published(model, path, name, rename)


def left_out_parameters() -> int:
    """Size of what the authors' model holds beside the tower: class head, Fourier filters, mel filters."""
    window, bins = 1024, 513
    head = 768 * CLASSES * 2 * 3 + CLASSES + CLASSES * CLASSES + CLASSES
    return head + 2 * bins * window + bins * MELS
