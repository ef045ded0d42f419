"""Weights and memory of STG-CMA against the numbers of its authors' classes."""

import pytest
import torch
from torch import nn

from avtune.backbones import create_tower
from avtune.counting import saved_bytes
from avtune.encoder import BoundBlock
from avtune.fusion import BlockSizes, Notes, build_fusion
from avtune.profile_all import profile_all

COUNTS = {
    "clip_b_tiny": (3.530, 89.562),
    "clip_b_base": (11.498, 97.530),
    "clip_l_tiny": (10.676, 314.120),
    "clip_l_base": (20.118, 323.562),
    "swin_b_tiny": (5.600, 92.346),
    "swin_b_base": (10.069, 96.814),
    "swin_l_tiny": (11.741, 206.740),
    "swin_l_base": (19.027, 214.026),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_authors_classes(name: str) -> None:
    (row,) = profile_all([f"ave/stg_cma_{name}"], costs=False)
    assert (round(row.parameters.trainable / 1e6, 3), round(row.total / 1e6, 3)) == COUNTS[name]
    assert row.size == name.rsplit("_", 1)[1]


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
