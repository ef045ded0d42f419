"""One block under CoPL: operations, time and bytes kept, with prompts as keys and values against carried ones.

    python benchmarks/copl_block.py

writes benchmarks/results/copl_block.json and the table in docs/methods/copl.md. A block of ViT-B (197 tokens of
pictures, 49 of sound) with the specific prompts alone and with the interaction prompts of the last blocks, and a
shifted block of Swin-V2-B's first stage (48 x 48 tokens in windows of 12, both streams) with the specific prompts; the
paper's lengths on AVE, one clip of ten segments, float32, one thread. Three forms: both streams through the frozen
block alone; avtune's layer, whose prompts are keys and values; prompts that pass the whole block and are thrown away
(experiments/methods_reference/copl.py). Time is that of the process, not of the clock, so that other work on the
machine disturbs it less; the least of several passes. Bytes and operations do not vary.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from avtune.backbones import FrozenBlock, create_tower
from avtune.encoder import BoundBlock
from avtune.fusion import BlockSizes, FusionLayer, Notes, build_fusion
from avtune.fusion.copl import CoplLayer
from avtune.fusion.frozen import FrozenLayer

sys.path.insert(0, str(Path(__file__).parent / "experiments"))
from block_costs import SEGMENTS, asked_repeats, check_equal, measure_form, with_ratios, write
from methods_reference.copl import straightforward

RESULT = Path(__file__).parent / "results" / "copl_block.json"
PAGE = Path(__file__).parents[1] / "docs" / "methods" / "copl.md"
MARKED = re.compile(r"(<!-- begin copl_block -->\n).*?(<!-- end copl_block -->)", re.DOTALL)
VIT, SWIN = "vit_base_patch16_224.augreg_in21k", "swinv2_base_window12_192.ms_in22k"
CASES = {
    "ViT-B block": (VIT, 0, 49, 197, 0),
    "ViT-B block with interaction": (VIT, 0, 49, 197, 1),
    "Swin-V2-B stage 1 block": (SWIN, 1, 2304, 2304, 0),
}


def frozen_block(tower_name: str, index: int) -> FrozenBlock:
    tower = create_tower(tower_name, pretrained=False, depth=index + 1)
    block = tower.blocks[index]
    for module in block.modules():
        # Swin-V2 starts with norms of zero behind its branches, which would hide a wrong form.
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    return block


def multiply_adds(module: FusionLayer, block: FrozenBlock, audio: Tensor, video: Tensor) -> int:
    bound = BoundBlock(copy.deepcopy(block).to("meta"), None)
    module = copy.deepcopy(module).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(audio.to("meta"), video.to("meta"), bound, bound, Notes(segments=SEGMENTS))
    return int(counter.get_total_flops()) // 2


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    tower_name, index, audio_length, video_length, interacting = CASES[name]
    torch.manual_seed(0)
    block = frozen_block(tower_name, index)
    sizes = BlockSizes(block.dim, block.dim, block.heads, block.heads, segments=SEGMENTS)
    layer = build_fusion("copl", [sizes], options={"interaction_blocks": interacting}).layers[0].eval()
    assert isinstance(layer, CoplLayer)
    audio = torch.randn(SEGMENTS, audio_length, block.dim, requires_grad=True)
    video = torch.randn(SEGMENTS, video_length, block.dim, requires_grad=True)
    bound, known = BoundBlock(block, None), nn.ModuleList([block, layer])
    forms: dict[str, FusionLayer] = {
        "frozen": FrozenLayer(),
        "avtune": layer,
        "carried": straightforward(layer),
    }
    rows, outputs = {}, {}
    for form, module in forms.items():

        def step(module: FusionLayer = module) -> tuple[Tensor, Tensor]:
            return module(audio, video, bound, bound, Notes(segments=SEGMENTS))

        row, outputs[form] = measure_form(step, nn.ModuleList([known, module]), repeats)
        rows[form] = {"gmacs": round(multiply_adds(module, block, audio, video) / 1e9, 3), **row}
        print(name, form, rows[form], flush=True)
    check_equal(outputs, "carried")
    return with_ratios(rows, ("frozen", "carried"))


def table(blocks: dict[str, dict[str, dict[str, float]]]) -> str:
    """The forms of each block as Markdown."""
    lines = [
        "| block | form | multiply-adds | kept for backward | CPU time |",
        "| --- | --- | --- | --- | --- |",
    ]
    names = {
        "frozen": "frozen block alone",
        "avtune": "prompts as keys and values",
        "carried": "carried prompts",
    }
    for block, rows in blocks.items():
        for form, called in names.items():
            row = rows[form]
            cells = [block, called, f"{row['gmacs']} G", f"{row['saved_mib']} MiB", f"{row['cpu_seconds']} s"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    repeats = asked_repeats(__doc__)
    torch.set_num_threads(1)
    blocks = {name: measure(name, repeats) for name in CASES}
    write(RESULT, "copl_block.py", repeats, {"blocks": blocks})
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda m: m[1] + table(blocks) + m[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
