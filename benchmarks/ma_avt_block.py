"""One ViT-B block under MA-AVT: time of a forward and backward pass, and bytes kept between the two.

    python benchmarks/ma_avt_block.py

writes benchmarks/results/ma_avt_block.json. 197 tokens of each stream, five tokens of each group, foreground and
background tokens, the contrastive loss; one clip of ten segments, float32, one thread. Three forms: both streams
through the frozen block alone; avtune's; the same maths written down naively (experiments/methods_reference/ma_avt.py).
Time is that of the process, not of the clock, so that other work on the machine disturbs it less; the least of several
passes. Bytes do not vary.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from avtune.config import EncoderConfig
from avtune.encoder import BoundBlock, create_encoder
from avtune.fusion import Notes
from avtune.fusion.frozen import FrozenLayer
from avtune.fusion.ma_avt import MaAvt

sys.path.insert(0, str(Path(__file__).parent / "experiments"))
from block_costs import SEGMENTS, Step, asked_repeats, check_equal, measure_form, with_ratios, write
from methods_reference.ma_avt import straightforward

RESULT = Path(__file__).parent / "results" / "ma_avt_block.json"
LENGTH = 197


def steps() -> tuple[dict[str, Step], torch.nn.Module]:
    """The three forms on the same clip with the same weights, and the module that holds them all."""
    torch.manual_seed(0)
    config = EncoderConfig(tower="vit_base_patch16_224", pretrained=False, fusion="ma_avt")
    encoder = create_encoder(config, depth=1).train()
    fusion = encoder.fusion
    assert isinstance(fusion, MaAvt)
    block = BoundBlock(encoder.video_tower.blocks[0], None)
    audio, video = (torch.randn(SEGMENTS, LENGTH, block.dim, requires_grad=True) for _ in range(2))
    foreground = torch.ones(SEGMENTS, dtype=torch.bool)
    plain = FrozenLayer()

    def frozen() -> tuple[Tensor, Tensor, Tensor]:
        a, v = plain(audio, video, block, block, Notes(segments=SEGMENTS))
        return a, v, torch.zeros(())

    def avtune() -> tuple[Tensor, Tensor, Tensor]:
        notes = Notes(segments=SEGMENTS)
        a, v = fusion.open(*fusion.embed(audio, video, notes), notes)
        a, v = fusion.layers[0](a, v, block, block, notes)
        return *fusion.close(a, v, notes), fusion.losses(notes, foreground)["contrast"]

    def naive() -> tuple[Tensor, Tensor, Tensor]:
        notes = Notes(segments=SEGMENTS)
        a, v = straightforward(fusion, audio, video, block, notes)
        return a, v, fusion.losses(notes, foreground)["contrast"]

    return {"frozen": frozen, "avtune": avtune, "straightforward": naive}, encoder


def training_loss(outputs: tuple[Tensor, ...]) -> Tensor:
    audio, video, contrast = outputs
    return audio.square().mean() + video.square().mean() + contrast


def main() -> None:
    repeats = asked_repeats(__doc__)
    torch.set_num_threads(1)
    rows, outputs = {}, {}
    forms, known = steps()
    for form, step in forms.items():
        rows[form], outputs[form] = measure_form(step, known, repeats, training_loss)
        print(form, rows[form], flush=True)
    check_equal(outputs, "straightforward")
    write(RESULT, "ma_avt_block.py", repeats, with_ratios(rows, ("frozen", "straightforward")))


if __name__ == "__main__":
    main()
