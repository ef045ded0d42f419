"""One block under STG-CMA: time of a forward and backward pass, and bytes kept between the two.

    python benchmarks/stg_cma_block.py

writes benchmarks/results/stg_cma_block.json. A block of ViT-B (197 tokens of pictures, 49 of sound, adapters of 1/8)
and one of Swin-B's first stage (3136 tokens each, 1/4), one clip of ten segments, float32, one thread. Three forms:
both streams through the frozen block alone; avtune's layer; the same maths written down naively
(experiments/methods_reference/stg_cma.py). Time is that of the process, not of the clock, so that other work on the
machine disturbs it less; the least of several passes. Bytes do not vary.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from avtune.backbones import create_tower
from avtune.encoder import BoundBlock
from avtune.fusion import BlockSizes, FusionLayer, Notes, build_fusion
from avtune.fusion.frozen import FrozenLayer
from avtune.fusion.stg_cma import StgCmaLayer

sys.path.insert(0, str(Path(__file__).parent / "experiments"))
from block_costs import SEGMENTS, asked_repeats, check_equal, measure_form, with_ratios, write
from methods_reference.stg_cma import straightforward

RESULT = Path(__file__).parent / "results" / "stg_cma_block.json"
AUTHORS_SWIN_MIB = 1387
CASES = {
    "ViT-B block": ("vit_base_patch16_clip_quickgelu_224", 49, 197, {"ratios": [1 / 8]}),
    "Swin-B stage 1 block": (
        "swin_base_patch4_window7_224", 3136, 3136, {"ratios": [1 / 4], "time_positions": "tables"},
    ),
}  # fmt: skip


def trained(layer: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    tower_name, audio_length, video_length, options = CASES[name]
    torch.manual_seed(0)
    tower = create_tower(tower_name, pretrained=False, depth=1)
    block = tower.blocks[0]
    sizes = BlockSizes(block.dim, block.dim, block.heads, block.heads, segments=SEGMENTS)
    layer = build_fusion("stg_cma", [sizes], options=options).layers[0].eval()
    assert isinstance(layer, StgCmaLayer)
    trained(layer)
    audio = torch.randn(SEGMENTS, audio_length, block.dim, requires_grad=True)
    video = torch.randn(SEGMENTS, video_length, block.dim, requires_grad=True)
    bound, known = BoundBlock(block, None), nn.ModuleList([tower, layer])
    forms: dict[str, FusionLayer] = {
        "frozen": FrozenLayer(),
        "avtune": layer,
        "straightforward": straightforward(layer),
    }
    rows, outputs = {}, {}
    for form, module in forms.items():

        def step(module: FusionLayer = module) -> tuple[Tensor, Tensor]:
            return module(audio, video, bound, bound, Notes(segments=SEGMENTS))

        rows[form], outputs[form] = measure_form(step, known, repeats)
        print(name, form, rows[form], flush=True)
    check_equal(outputs, "straightforward")
    return with_ratios(rows, ("frozen", "straightforward"))


def main() -> None:
    repeats = asked_repeats(__doc__)
    torch.set_num_threads(1)
    content = {
        "authors_form_saved_mib": {"Swin-B stage 1 block": AUTHORS_SWIN_MIB},
        "blocks": {name: measure(name, repeats) for name in CASES},
    }
    write(RESULT, "stg_cma_block.py", repeats, content)


if __name__ == "__main__":
    main()
