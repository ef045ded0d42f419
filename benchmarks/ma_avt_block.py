"""One ViT-B block under MA-AVT: time of a forward and backward pass, and bytes kept between the two.

    python benchmarks/ma_avt_block.py

writes benchmarks/results/ma_avt_block.json. 197 tokens of each stream, five tokens of each group, foreground and
background tokens, the contrastive loss; one clip of ten segments, float32, one thread. Three forms: both streams
through the frozen block alone; avtune's; the same maths written down naively (experiments/methods_reference/ma_avt.py).
Time is that of the process, not of the clock, so that other work on the machine disturbs it less; the least of several
passes. Bytes do not vary.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from avtune.config import EncoderConfig
from avtune.counting import saved_bytes
from avtune.encoder import BoundBlock, create_encoder
from avtune.fusion import Notes
from avtune.fusion.frozen import FrozenLayer
from avtune.fusion.ma_avt import MaAvt

sys.path.insert(0, str(Path(__file__).parent / "experiments"))
from methods_reference.ma_avt import straightforward

RESULT = Path(__file__).parent / "results" / "ma_avt_block.json"
SEGMENTS, LENGTH = 10, 197

Step = Callable[[], tuple[Tensor, Tensor, Tensor]]


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


def least_seconds(step: Step, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        audio, video, contrast = step()
        (audio.square().mean() + video.square().mean() + contrast).backward()
        times.append(time.process_time() - begin)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each form")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    outputs = {}
    forms, known = steps()
    for form, step in forms.items():
        with saved_bytes(known) as kept:
            outputs[form] = step()
        rows[form] = {
            "saved_mib": round(kept[0] / 2**20, 1),
            "cpu_seconds": round(least_seconds(step, repeats), 3),
        }
        print(form, rows[form], flush=True)
    for ours, theirs in zip(outputs["avtune"], outputs["straightforward"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    ratios = {
        f"avtune_over_{other}": {
            name: round(value / rows[other][name], 2) for name, value in rows["avtune"].items()
        }
        for other in ("frozen", "straightforward")
    }
    result = {
        "command": "python benchmarks/ma_avt_block.py",
        "what": "forward and backward of both streams, one clip of ten segments, float32, one thread, CPU time",
        "repeats": repeats,
        **rows,
        **ratios,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
