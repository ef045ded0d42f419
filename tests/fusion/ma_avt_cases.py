"""Small towers with MA-AVT around them, clips to walk them with, its head and its whole loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avtune.config import EncoderConfig, HeadConfig
from avtune.encoder import DualEncoder, Encoded, create_encoder
from avtune.heads.ma_avt import MaAvtHead, MaAvtHeadSettings, ma_avt_loss

NANO = "nano"
VIT = "vit_tiny_patch16_224"
CLASSES = 4


def encoder_of(
    depth: int = 2, tower: str = NANO, audio_tower: str | None = None, **options: Any
) -> DualEncoder:
    preset = options.pop("preset", None)
    if tower == VIT:
        options = {"attention_heads": 3, **options}
    torch.manual_seed(0)
    return create_encoder(
        EncoderConfig(
            tower=tower, audio_tower=audio_tower, pretrained=False, fusion="ma_avt", preset=preset, options=options
        ),
        depth=depth,
    )  # fmt: skip


def head_of(encoder: DualEncoder, **settings: Any) -> MaAvtHead:
    torch.manual_seed(2)
    dims = encoder.audio_tower.dim, encoder.video_tower.dim
    return MaAvtHead(*dims, CLASSES, 16, MaAvtHeadSettings(**settings))


def whole_loss(encoder: DualEncoder, head: MaAvtHead, encoded: Encoded, background: int = 1) -> Tensor:
    logits = head(encoded)
    target = torch.arange(logits[..., 0].numel()).view(logits.shape[:2]) % (CLASSES - 1)
    target[:, :background] = CLASSES - 1
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = ma_avt_loss(logits, encoded.notes, target, valid, HeadConfig(name="ma_avt"))
    foreground = (target != CLASSES - 1).flatten()
    return loss + sum(encoder.fusion.losses(encoded.notes, foreground).values())
