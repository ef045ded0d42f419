"""One block under each method: multiply-adds, bytes kept for the backward pass, and time of forward and backward.

    python benchmarks/method_blocks.py
    python benchmarks/method_blocks.py --only lavish cma+adapter

writes benchmarks/results/method_blocks.json; ``--only`` measures some methods anew and keeps the other rows. A block of
ViT-B and one of Swin-B's first stage, both streams through the same block, one clip of ten segments, float32, one
thread, random weights, gates opened. Four forms:

- frozen: the walk over the frozen block alone;
- frozen_unfused: the same with timm's attention that keeps its scores, as timm's Swins do anyway;
- avtune: the method's layer, or the plain walk with the tuning;
- straightforward: the same function in the form of the authors' code or, where they published none, as one writes it
  down first (experiments/methods_reference), with the same weights, over the block of frozen_unfused. Outputs have
  to agree with avtune's to 1e-4.

Time is that of the process, not of the clock, so that other work on the machine disturbs it less; the least of several
passes, the forms in turn. Bytes and operations do not vary.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avtune.backbones import FrozenBlock
from avtune.compare import processor_name
from avtune.config import EncoderConfig
from avtune.counting import saved_bytes
from avtune.encoder import BoundBlock, DualEncoder, create_encoder
from avtune.fusion import Fusion, Notes, OptionError
from avtune.fusion.frozen import FrozenLayer
from avtune.tuning import BlockTuning

sys.path.insert(0, str(Path(__file__).parent / "experiments"))
from methods_reference import copl, dg_sct, lavish, ma_avt, mbt, stg_cma, tuning
from methods_reference.frozen import Walk, unfused

RESULT = Path(__file__).parent / "results" / "method_blocks.json"
SEGMENTS = 10
AUTHORS_MIB = {"stg_cma": {"Swin-B stage 1": 1387}}
"""What the authors' own code keeps at one block, where it was run."""

BLOCKS = {
    "ViT-B": ("vit_base_patch16_224.augreg_in21k", 0),
    "CLIP ViT-B": ("vit_base_patch16_clip_quickgelu_224", 0),
    "Swin-B stage 1": ("swin_base_patch4_window7_224", 0),
    "Swin-V2-B stage 1": ("swinv2_base_window12_192.ms_in22k", 1),
}
"""Tower and index of the block; Swin-V2's is the one whose windows are shifted."""
USUAL_BLOCKS = ("ViT-B", "Swin-V2-B stage 1")
SECOND_OF_SOUND = (102, 128)
"""Steps and mels that give a ViT 49 tokens of sound (``ave_vit``); a Swin takes its own square."""

NOTHING_KEPT = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)

Step = Callable[[], tuple[Tensor, ...]]
Row = dict[str, float]


def layer_of(fusion: Fusion, index: int) -> Walk:
    layer: Walk = fusion.layers[index]
    return layer


@dataclass(frozen=True)
class Method:
    """What is measured.

    Attributes:
        settings: Of ``EncoderConfig``.
        straightforward: The naive form of its step, from the fusion and the index of the layer.
        blocks: Keys of ``BLOCKS``.
        square_sound: Whether its sound is a square of the tower's size on a ViT too.
        avtune: avtune's step, where it is more than the layer.
    """

    settings: dict[str, Any]
    straightforward: Callable[[Any, int], Walk] = tuning.straightforward
    blocks: tuple[str, ...] = USUAL_BLOCKS
    square_sound: bool = False
    avtune: Callable[[Any, int], Walk] = field(default=layer_of)


def tuned(
    name: str, preset: str, straightforward: Callable[[Any, int], Walk] = tuning.straightforward
) -> Method:
    return Method({"fusion": "frozen", "tuning": name, "tuning_preset": preset}, straightforward)


METHODS = {
    "lavish": Method({"fusion": "lavish", "preset": "official_ave"}, lavish.straightforward),
    "avish": Method(
        {"fusion": "lavish", "preset": "official_ave", "options": {"latents": 0}}, lavish.straightforward
    ),
    "dg_sct": Method({"fusion": "dg_sct", "preset": "official_ave"}, dg_sct.straightforward),
    "mbt": Method({"fusion": "mbt", "preset": "paper"}, mbt.straightforward, square_sound=True),
    "stg_cma": Method(
        {"fusion": "stg_cma", "preset": "base"}, stg_cma.straightforward, ("CLIP ViT-B", "Swin-B stage 1")
    ),
    "copl": Method({"fusion": "copl", "options": {"interaction_blocks": 0}}, copl.straightforward),
    "copl with interaction": Method(
        {"fusion": "copl", "options": {"interaction_blocks": 1}}, copl.straightforward, ("ViT-B",)
    ),
    "ma_avt": Method({"fusion": "ma_avt"}, ma_avt.straightforward, square_sound=True, avtune=ma_avt.whole),
    "adapter houlsby": tuned("adapter", "houlsby"),
    "adapter lavish_table_5_lora": tuned("adapter", "lavish_table_5_lora"),
    "compacter": tuned("compacter", "paper"),
    "lora": tuned("lora", "attention"),
    "prompts": tuned("prompts", "deep", tuning.carried_prompts),
    "norms": tuned("norms", "own"),
    "full": tuned("full", "own"),
    "cma+adapter": Method(
        {"fusion": "cma", "preset": "official_ave", "tuning": "adapter", "tuning_preset": "lavish_table_5"},
        tuning.cross_modal_attention,
    ),
}  # fmt: skip


def sound_shape(name: str, block: str) -> tuple[int, int] | None:
    """Steps and mels of a segment's spectrogram; ``None``: the tower's own square."""
    return None if METHODS[name].square_sound or "Swin" in block else SECOND_OF_SOUND


def encoder_for(name: str, block: str) -> DualEncoder:
    """The method on a tower that ends with the block."""
    tower, index = BLOCKS[block]
    torch.manual_seed(0)
    return create_encoder(
        EncoderConfig(tower=tower, pretrained=False, **METHODS[name].settings),
        segments=SEGMENTS,
        spectrogram_shape=sound_shape(name, block),
        depth=index + 1,
    )


def open_gates(encoder: nn.Module) -> None:
    """Draw what starts at zero, or so near that it would hide a wrong form; Swin-V2's norms too start at zero."""
    with torch.no_grad():
        for module in encoder.modules():
            for name, weight in module.named_parameters(recurse=False):
                if not weight.any():
                    ones = isinstance(module, nn.LayerNorm) and name == "weight"
                    weight.fill_(1.0) if ones else weight.normal_(std=0.1)
                elif name == "rules":
                    weight.normal_()


def forms(name: str, block: str) -> tuple[dict[str, Step], nn.Module, list[int]]:
    """The steps to measure, on one clip with the same weights, a module that holds all weights, and token counts."""
    method, index = METHODS[name], BLOCKS[block][1]
    encoder = encoder_for(name, block).train()
    open_gates(encoder)
    sound, sight = encoder.audio_tower, encoder.video_tower
    square = (sight.image_size, sight.image_size)
    lengths = [sound.lengths(*sound_shape(name, block) or square)[index], sight.lengths(*square)[index]]
    own = sound.blocks[index], sight.blocks[index]
    parts = encoder.tuning.at("audio", index), encoder.tuning.at("video", index)
    # A method may free weights of the towers; the block that is measured alone has none that are trained.
    frozen = copy.deepcopy(own[1]).requires_grad_(False)
    audio, video = (torch.randn(SEGMENTS, length, frozen.dim, requires_grad=True) for length in lengths)

    def step(walk: Walk, *bound: BoundBlock) -> Step:
        return lambda: walk(audio, video, *bound, Notes(segments=SEGMENTS))

    def bind(blocks: Iterable[FrozenBlock], parts: Iterable[BlockTuning]) -> list[BoundBlock]:
        return [BoundBlock(block, None, part) for block, part in zip(blocks, parts, strict=True)]

    naive = bind(map(unfused, own), map(tuning.naive_part, parts))
    steps = {
        "frozen": step(FrozenLayer(), *[BoundBlock(frozen, None)] * 2),
        "avtune": step(method.avtune(encoder.fusion, index), *bind(own, parts)),
        "straightforward": step(method.straightforward(encoder.fusion, index), *naive),
    }
    if any(getattr(part, "fused_attn", False) for part in frozen.modules()):
        steps["frozen_unfused"] = step(FrozenLayer(), *[BoundBlock(unfused(frozen), None)] * 2)
    return steps, nn.ModuleList([encoder, frozen]), lengths


def summed_squares(outputs: tuple[Tensor, ...]) -> Tensor:
    return sum((output.square().sum() for output in outputs), torch.zeros(()))


def check_equal(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    """Refuse to compare the cost of things that differ."""
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def count(steps: Mapping[str, Step], known: nn.Module) -> dict[str, Row]:
    """Multiply-adds of each form, and the bytes that it keeps besides the weights of ``known``; they have to agree."""
    rows, outputs = {}, {}
    for form, step in steps.items():
        # What the fused kernels do is not counted; it is what their long form does, which would keep every score.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), NOTHING_KEPT:
            step()
        with saved_bytes(known) as kept:
            outputs[form] = tuple(output.detach() for output in step())
        gmacs = counter.get_total_flops() / 2e9
        rows[form] = {"gmacs": round(gmacs, 3), "saved_mib": round(kept[0] / 2**20, 1)}
    check_equal(outputs["avtune"], outputs["straightforward"])
    return rows


def least_seconds(steps: Mapping[str, Step], repeats: int) -> dict[str, float]:
    """Processor seconds of a forward and backward pass, the least of ``repeats``."""
    times: dict[str, list[float]] = {form: [] for form in steps}
    for _ in range(repeats):
        for form, step in steps.items():
            begin = time.process_time()
            summed_squares(step()).backward()
            times[form].append(time.process_time() - begin)
    return {form: round(min(taken), 3) for form, taken in times.items()}


def measure(name: str, block: str, repeats: int) -> dict[str, Any]:
    """A row of the result."""
    row: dict[str, Any] = {"method": name, "block": block, "settings": METHODS[name].settings}
    try:
        steps, known, lengths = forms(name, block)
    except OptionError as error:
        return {**row, "refused": str(error)}
    row["audio_tokens"], row["video_tokens"] = lengths
    rows = count(steps, known)
    for form, seconds in least_seconds(steps, repeats).items():
        rows[form]["cpu_seconds"] = seconds
    ours = rows["avtune"]
    over = {
        f"avtune_over_{other}": {what: round(ours[what] / rows[other][what], 2) for what in ours}
        for other in ("frozen", "straightforward")
    }
    return {**row, "forms": rows, **over}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), help="methods")
    parser.add_argument("--repeats", type=int, default=4, help="timed passes of each form")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "command": "python benchmarks/method_blocks.py",
        "what": "forward and backward of both streams, one clip of ten segments, float32, one thread, CPU time",
        "repeats": options.repeats,
        "torch": torch.__version__,
        "machine": processor_name(),
        "authors_form_saved_mib": AUTHORS_MIB,
    }
    kept = []
    if options.only != list(METHODS):
        known = json.loads(RESULT.read_text(encoding="utf-8"))
        kept = [row for row in known.pop("rows") if row["method"] not in options.only]
        if known != about:
            parser.error(f"{RESULT.name} was measured otherwise ({known}); measure all methods anew")
    rows = []
    for name in options.only:
        for block in METHODS[name].blocks:
            rows.append(measure(name, block, options.repeats))
            print(json.dumps(rows[-1]), flush=True)
    order = list(METHODS)
    rows = sorted([*kept, *rows], key=lambda row: order.index(row["method"]))
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
