"""Clips per second and memory of one pretraining step: AVSiam, AVSep, CAV-MAE, and AVSiam without packing.

    python benchmarks/pretraining_throughput.py --device cuda
    python benchmarks/pretraining_throughput.py --device cpu --depth 2 --batch 12

writes benchmarks/results/pretraining_throughput_<device>.json, or <device>_compiled.json.

A step draws its masks, runs forward and backward and a fused AdamW over random clips that are on the device already:
128 mel bands, 1024 steps, one frame. Weights are random. All forms have the same attention kernel (torch's flash
attention, for equal lengths or for differing ones), precision (bfloat16 by autocast on CUDA, float32 on the CPU) and
optimiser. The decoder keeps its share of a reduced depth.

- avsiam, avsep, cav_mae: as avtune computes them, preset ``paper``.
- avsiam_grouped: the same weights, masks and losses, but as one writes it down first and as its authors do: the
  transformer and the multimodal layers are called for each group of equally long sequences of one modality. Its loss
  has to agree with avsiam's.
- contrastive, contrastive_grouped: AVSiam's contrastive loss alone.
- cav_mae_equal_tokens: CAV-MAE with as many times the clips as make its encoder see as many patches as AVSiam's.

The forms take turns. Time is the clock's on CUDA, over several steps between two synchronisations, and the process's
on the CPU, at one thread. Memory on CUDA is the peak of a step, with the model's weights and optimiser state and
without the other models'; ``saved_mib`` is what autograd keeps for the backward pass. What does not fit says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from avtune.compare import processor_name, source_commit
from avtune.counting import saved_bytes
from avtune.pretrain import OBJECTIVES, Masks, PretrainingLoss, create_pretraining
from avtune.pretrain.backbone import take_backbone
from avtune.pretrain.blocks import PackedBlock, PackedBlocks
from avtune.pretrain.packing import Layout, Packed, pack_together

RESULTS = Path(__file__).parent / "results"
SPECTROGRAM = (128, 1024)
STEPS = 3
"""Steps between two looks at the clock on CUDA; one on the CPU."""
TOLERANCE = {"cuda": 1e-2, "cpu": 1e-5}
"""Relative difference of the losses of two forms: that of sums of bfloat16 products, and of float32's."""


@dataclass(frozen=True)
class Form:
    """What is measured.

    Attributes:
        model: Key of ``MODELS``.
        grouped: Call the transformers for each group of equally long sequences.
        equal_to: The form whose tokens its batch is made to match.
    """

    model: str
    grouped: bool = False
    equal_to: str | None = None


MODELS = {
    "avsiam": ("avsiam", "paper"),
    "avsep": ("avsiam", "avsep"),
    "cav_mae": ("cav_mae", "paper"),
    "contrastive": ("avsiam", "contrastive"),
}
FORMS = {
    "avsiam": Form("avsiam"),
    "avsiam_grouped": Form("avsiam", grouped=True),
    "avsep": Form("avsep"),
    "cav_mae": Form("cav_mae"),
    "cav_mae_equal_tokens": Form("cav_mae", equal_to="avsiam"),
    "contrastive": Form("contrastive"),
    "contrastive_grouped": Form("contrastive", grouped=True),
}
RATIOS = {
    "packed_over_grouped": ("avsiam", "avsiam_grouped", "clips_per_second"),
    "contrastive_packed_over_grouped": ("contrastive", "contrastive_grouped", "clips_per_second"),
    "avsiam_over_avsep": ("avsiam", "avsep", "clips_per_second"),
    "avsiam_over_cav_mae": ("avsiam", "cav_mae", "clips_per_second"),
    "contrastive_over_cav_mae": ("contrastive", "cav_mae", "clips_per_second"),
    "avsiam_over_cav_mae_at_equal_tokens": ("avsiam", "cav_mae_equal_tokens", "tokens_per_second"),
}
"""Name, and the two forms whose medians are divided."""


class ByGroup(nn.Module):
    """Blocks that are called for each group of equally long sequences of one modality, while ``grouped`` is set."""

    def __init__(self, blocks: PackedBlocks) -> None:
        super().__init__()
        self.inner, self.grouped = blocks, False

    def forward(self, packed: Packed) -> Packed:
        """The sequences behind all blocks."""
        if not self.grouped:
            together: Packed = self.inner(packed)
            return together
        layouts = groups(packed.layout)
        parts = packed.tokens.split([sum(layout.lengths) for layout in layouts])
        return pack_together([self.inner(Packed(*part)) for part in zip(parts, layouts, strict=True)])


def groups(layout: Layout) -> list[Layout]:
    """Each stretch of equally long sequences of one modality by itself."""
    lengths, found = iter(layout.lengths), []
    for norm, count in layout.norms:
        left = count
        own = []
        while left:
            own.append(next(lengths))
            left -= own[-1]
        runs = [tuple(same) for _, same in groupby(own)]
        found += [Layout(run, ((norm, sum(run)),)) for run in runs]
    return found


class Contender:
    """A model, its optimiser, and what a step of it is."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        objective, preset = MODELS[name]
        decoder_depth = OBJECTIVES[objective].presets[preset].decoder_depth
        torch.manual_seed(0)
        model: Any = create_pretraining(
            objective, options.backbone, preset,
            {"decoder_depth": max(1, round(decoder_depth * options.depth / options.full_depth))},
            pretrained=False, depth=options.depth, spectrogram=SPECTROGRAM, device=options.device,
        )  # fmt: skip
        self.model, self.device = model.train(), torch.device(options.device)
        self.groupers: list[ByGroup] = []
        if objective == "avsiam":
            for trunk in list(model.encoder.trunks):
                model.encoder.trunks[trunk] = self._grouper(model.encoder.trunks[trunk])
            model.encoder.joint = self._grouper(model.encoder.joint)
        if options.compile:
            for block in model.modules():
                if isinstance(block, PackedBlock):
                    block.compile(dynamic=True)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.95, 0.999), fused=True)

    def _grouper(self, blocks: PackedBlocks) -> ByGroup:
        self.groupers.append(ByGroup(blocks))
        return self.groupers[-1]

    @contextmanager
    def kernel(self, grouped: bool) -> Iterator[None]:
        """The form, precision and attention kernel."""
        half = self.device.type == "cuda"
        for one in self.groupers:
            one.grouped = grouped
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=half),
            sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        ):
            yield

    def draw(self, clips: int, seed: int) -> Masks:
        """What a step sees."""
        masks: Masks = self.model.draw(clips, torch.Generator().manual_seed(seed))
        return masks

    def losses(self, sound: Tensor, frames: Tensor, masks: Masks, grouped: bool) -> PretrainingLoss:
        """The forward pass."""
        with self.kernel(grouped):
            loss: PretrainingLoss = self.model(sound, frames, masks)
        return loss

    def step(self, sound: Tensor, frames: Tensor, seed: int, grouped: bool) -> None:
        """All of a step."""
        self.losses(sound, frames, self.draw(len(sound), seed), grouped).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_bytes(self) -> int:
        """Of weights and optimiser."""
        held = [*self.model.parameters(), *self.model.buffers()]
        held += [item for state in self.optimizer.state.values() for item in state.values()]
        return sum(tensor.nbytes for tensor in held)


class Entry:
    """A form at a batch size: its clips, and what was measured."""

    def __init__(self, name: str, contender: Contender, clips: int, image: int) -> None:
        self.name, self.form, self.contender = name, FORMS[name], contender
        generator = torch.Generator().manual_seed(1)
        self.clips = clips
        self.inputs = [
            torch.randn(clips, *shape, generator=generator).to(contender.device)
            for shape in (SPECTROGRAM, (3, image, image))
        ]
        masks = contender.draw(clips, 0)
        self.tokens = len(masks.audio) + len(masks.video)
        self.seconds: list[float] = []
        self.row: dict[str, Any] = {"form": name, "clips": clips, "encoder_tokens": self.tokens}

    def loss(self) -> PretrainingLoss:
        """The forward pass with the first step's masks."""
        return self.contender.losses(*self.inputs, self.contender.draw(self.clips, 0), self.form.grouped)

    def warm_up(self, steps: int) -> bool:
        """Some steps, with a note of the memory; False where it does not fit."""
        cuda = self.contender.device.type == "cuda"
        try:
            with saved_bytes(self.contender.model) as kept:
                self.loss()
            self.row["saved_mib"] = round(kept[0] / 2**20, 1)
            for seed in range(steps):
                self.step(seed)
            if cuda:
                before = torch.cuda.memory_allocated() - self.contender.state_bytes()
                torch.cuda.reset_peak_memory_stats()
                self.step(0)
                self.row["peak_mib"] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
        except torch.OutOfMemoryError:
            self.row["out_of_memory"] = True
        else:
            return True
        self.contender.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return False

    def step(self, seed: int) -> None:
        """All of a step, with masks of its own."""
        self.contender.step(*self.inputs, seed, self.form.grouped)

    def measure(self, repeat: int) -> None:
        """One repeat."""
        if self.contender.device.type == "cuda":
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for step in range(STEPS):
                self.step(STEPS * repeat + step)
            torch.cuda.synchronize()
            self.seconds.append((time.perf_counter() - begin) / STEPS)
        else:
            begin = time.process_time()
            self.step(repeat)
            self.seconds.append(time.process_time() - begin)

    def result(self) -> dict[str, Any]:
        """What was found so far."""
        if not self.seconds:
            return self.row
        median = statistics.median(self.seconds)
        return {
            **self.row,
            "step_ms": {
                name: round(1000 * of(self.seconds), 2)
                for name, of in (("median", statistics.median), ("min", min), ("max", max))
            },
            "clips_per_second": round(self.clips / median, 2),
            "tokens_per_second": round(self.tokens / median),
        }


def check_equal(packed: Entry, grouped: Entry) -> None:
    """Refuse to compare the cost of things that differ."""
    with torch.no_grad():
        ours, theirs = packed.loss(), grouped.loss()
    for name in ("total", "contrastive", "audio_reconstruction", "video_reconstruction"):
        one, other = getattr(ours, name), getattr(theirs, name)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=TOLERANCE[packed.contender.device.type], atol=0)


def measure_batch(
    contenders: dict[str, Contender], batch: int, image: int, options: argparse.Namespace
) -> dict[str, Any]:
    """All forms at one batch size."""
    entries: dict[str, Entry] = {}
    for name in options.forms:
        form, clips = FORMS[name], batch
        if form.equal_to is not None:
            wanted, own = entries[form.equal_to].tokens, contenders[form.model].draw(batch, 0)
            clips = round(batch * wanted / (len(own.audio) + len(own.video)))
        entries[name] = Entry(name, contenders[form.model], clips, image)
    fitting = {name: entry for name, entry in entries.items() if entry.warm_up(options.warm_up)}
    for name in ("avsiam", "contrastive"):
        if name in fitting and f"{name}_grouped" in fitting:
            check_equal(fitting[name], fitting[f"{name}_grouped"])
    for repeat in range(options.repeats):
        for entry in fitting.values():
            entry.measure(repeat)
    rows = {name: entry.result() for name, entry in entries.items()}
    ratios = {
        ratio: round(rows[one][rate] / rows[other][rate], 3)
        for ratio, (one, other, rate) in RATIOS.items()
        if one in fitting and other in fitting
    }
    return {"batch": batch, **ratios, "rows": list(rows.values())}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="vit_base_patch16_224.augreg_in21k", help="of all models")
    parser.add_argument("--depth", type=int, help="blocks of the backbone; without it all")
    parser.add_argument("--batch", type=int, nargs="+", help="clips; 32 64 128 on CUDA, 12 on the CPU")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first that counts")
    parser.add_argument("--compile", action="store_true", help="torch.compile every block, in all forms")
    options = parser.parse_args()
    kind = torch.device(options.device).type
    options.batch = options.batch or ([32, 64, 128] if kind == "cuda" else [12])
    compiled = "_compiled" if options.compile else ""
    options.result = RESULTS / f"pretraining_throughput_{kind}{compiled}.json"
    equal_to = {name: FORMS[name].equal_to for name in options.forms if FORMS[name].equal_to is not None}
    for name, other in equal_to.items():
        if other not in options.forms[: options.forms.index(name)]:
            parser.error(f"{name} needs {other} before it in --forms")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    cuda = torch.device(options.device).type == "cuda"
    backbone = take_backbone(options.backbone, pretrained=False, device="meta")
    options.full_depth = len(backbone.blocks)
    options.depth = options.depth or options.full_depth
    models = dict.fromkeys(FORMS[form].model for form in options.forms)
    contenders = {name: Contender(name, options) for name in models}
    result = {
        "command": " ".join(["python", "benchmarks/pretraining_throughput.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if cuda else "cpu, one thread",
        "machine": processor_name(),
        "torch": torch.__version__,
        "commit": source_commit(),
        "precision": "bfloat16 by autocast" if cuda else "float32",
        "backbone": options.backbone,
        "depth": options.depth,
        "repeats": options.repeats,
        "batches": [],
    }
    for batch in options.batch:
        result["batches"].append(measure_batch(contenders, batch, backbone.image_size, options))
        print(json.dumps(result["batches"][-1], indent=1), flush=True)
        options.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
