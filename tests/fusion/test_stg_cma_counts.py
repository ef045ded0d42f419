"""Weights and memory of STG-CMA against the numbers of its authors' classes."""

import pytest
import torch
from torch import nn

from avtune.backbones import Tower, create_tower
from avtune.config import EncoderConfig
from avtune.counting import saved_bytes
from avtune.encoder import BoundBlock, create_encoder
from avtune.fusion import BlockSizes, Notes, build_fusion
from avtune.heads.localization import SegmentHead

CLIP_B, CLIP_L = "vit_base_patch16_clip_quickgelu_224.openai", "vit_large_patch14_clip_quickgelu_224.openai"
SWIN_B, SWIN_L = "swin_base_patch4_window7_224.ms_in22k", "swin_large_patch4_window7_224.ms_in22k"
COUNTS = [
    ("clip_b_tiny", CLIP_B, 3.530, 89.562),
    ("clip_b_base", CLIP_B, 11.498, 97.530),
    ("clip_l_tiny", CLIP_L, 10.676, 314.120),
    ("clip_l_base", CLIP_L, 20.118, 323.562),
    ("swin_b_tiny", SWIN_B, 5.600, 92.346),
    ("swin_b_base", SWIN_B, 10.069, 96.814),
    ("swin_l_tiny", SWIN_L, 11.741, 206.740),
    ("swin_l_base", SWIN_L, 19.027, 214.026),
]


def stem_of_the_sound(tower: Tower) -> int:
    """Frozen weights that the authors' models hold twice, and avtune's once.

    CLIP: a one-channel convolution and the positions of 102 x 128 sound; Swin: a one-channel patch embedding.
    """
    patch = tower.patch_size
    filters = patch * patch * tower.dims[0]
    if tower.prefix_tokens:
        rows, columns = tower.grid(102, 128)
        return filters + (rows * columns + 1) * tower.dims[0]
    bias_and_norm = 3 * tower.dims[0]
    return filters + bias_and_norm


@pytest.mark.parametrize(("preset", "tower", "trainable", "total"), COUNTS)
def test_counts_are_those_of_the_authors_classes(
    preset: str, tower: str, trainable: float, total: float
) -> None:
    config = EncoderConfig(tower=tower, pretrained=False, fusion="stg_cma", preset=preset)
    shape = (102, 128) if "clip" in preset else (224, 224)
    encoder = create_encoder(config, segments=10, spectrogram_shape=shape, device="meta")
    with torch.device("meta"):
        head = SegmentHead(encoder.audio_tower.dim, encoder.video_tower.dim, classes=29)
    network = nn.ModuleList([encoder, head])
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    everything = sum(weight.numel() for weight in network.parameters())
    assert round(trained / 1e6, 3) == trainable
    assert round((everything + stem_of_the_sound(encoder.video_tower)) / 1e6, 3) == total


def test_the_first_stage_of_swin_keeps_at_most_half_of_what_the_authors_form_keeps() -> None:
    with torch.device("cpu"):
        tower = create_tower("swin_base_patch4_window7_224", pretrained=False, depth=1)
    block = tower.blocks[0]
    sizes = BlockSizes(128, 128, block.heads, block.heads, segments=10)
    layer = build_fusion(
        "stg_cma", [sizes], "swin_b_base", {"ratios": [0.25], "time_positions": "tables"}
    ).layers[0]
    audio, video = (torch.randn(10, 3136, 128).requires_grad_() for _ in range(2))
    bound = BoundBlock(block, None)
    with saved_bytes(nn.ModuleList([tower, layer])) as kept:
        layer(audio, video, bound, bound, Notes(segments=10))
    assert kept[0] / 2**20 <= 1387 / 2
