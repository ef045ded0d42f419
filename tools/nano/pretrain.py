"""Pretrain the nano backbone on procedurally generated images; needs nothing but this repository and a CPU.

    OMP_NUM_THREADS=1 python tools/nano/pretrain.py --steps 4800 --out runs/nano
    python tools/nano/pretrain.py --out runs/nano --export src/avtune/backbones/weights/nano.safetensors

A run that was stopped goes on from its last checkpoint when started again with the same arguments, and ends as an
unbroken one would; until the cooldown begins, --steps may still be changed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from objective import Objective, Weights
from safetensors.torch import save_file
from shapes import ObjectPictures
from stacks import StackPictures
from torch import Tensor, nn

from avtune.backbones.nano import create_nano, scale_stream

BANK_STEPS = 2000


def learning_rate(step: int, options: argparse.Namespace) -> float:
    """Linear warm-up, constant, then linear to zero: the end can be set while the run is under way."""
    left = (options.steps - step) / max(1, options.cooldown)
    return options.lr * min((step + 1) / options.warmup, 1.0, left)


def choose_patches(
    masks: Tensor, kept: int, predicted: int, preference: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Visible patches, and patches to predict: hidden ones, or any where all are visible.

    Args:
        masks: Coverage by what carries the identity, (n, 64, 64).
        kept: Number of visible patches.
        predicted: Number of patches to predict.
        preference: Advantage of covered patches in becoming visible, 0 (none) to 1 (always first).
        generator: Source of chance.
    """
    covered = F.max_pool2d(masks[:, None], 8).flatten(1) > 0.3
    order = (torch.rand(covered.shape, generator=generator) - preference * covered).argsort(1)
    return order[:, :kept], order[:, -predicted:]


def optimiser_for(model: Objective, decay: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2 and p is not model.encoder.pos_embed]
    others = [p for p in model.parameters() if p.ndim < 2 or p is model.encoder.pos_embed]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)


def save(path: Path, state: dict[str, object]) -> None:
    waiting = path.with_suffix(".waiting")
    torch.save(state, waiting)
    os.replace(waiting, path)


def train(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    weights = Weights(**json.loads(options.weights))
    model = Objective(options.seed, weights)
    optimiser = optimiser_for(model, options.decay)
    if options.compile:
        model.encode = torch.compile(model.encode, dynamic=False)
    checkpoint, log = options.out / "checkpoint.pt", options.out / "log.jsonl"
    begun, drawn, spent = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        begun, drawn, spent = state["step"], state["images"], state["seconds"]
    stacks, objects, bank = StackPictures(), None, -1
    generator, images = torch.Generator(), 2 * (options.objects + options.stacks)
    cpu, sums, seen = time.process_time() - spent, {}, 0
    for step in range(begun, options.steps):
        if step // BANK_STEPS != bank:
            bank = step // BANK_STEPS
            objects = ObjectPictures(options.seed * 1009 + bank, difficulty=options.difficulty)
        # Seeded by the step alone, so that a resumed run sees what the unbroken one would have seen.
        generator.manual_seed(options.seed * 1_000_003 + step)
        families = [objects.views(options.objects, 2, generator), stacks.views(options.stacks, 2, generator)]
        kept = 64 if step >= options.steps - options.whole else options.kept
        masks = torch.cat([f.mask for f in families])
        visible, wanted = choose_patches(masks, kept, options.predicted, options.preference, generator)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        with torch.autocast("cpu", torch.bfloat16):
            loss, report = model(families, visible, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seen += 1
        drawn += images
        for name, value in report.items():
            sums[name] = sums.get(name, 0.0) + value
        last = step + 1 == options.steps
        if (step + 1) % options.report_every == 0 or last:
            means = {name: round(value / seen, 4) for name, value in sums.items()}
            seconds = time.process_time() - cpu
            row = {"step": step + 1, "images": drawn, "cpu_seconds": round(seconds, 1), **means}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            sums, seen = {}, 0
        if (step + 1) % options.save_every == 0 or last:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            save(checkpoint, {**state, "images": drawn, "seconds": time.process_time() - cpu})


def stream_std(model: nn.Module) -> float:
    """Standard deviation of the residual stream behind the last block, over generated pictures of both families."""
    generator = torch.Generator().manual_seed(0)
    families = [
        ObjectPictures(0, size=512).views(128, 1, generator),
        StackPictures().views(128, 1, generator),
    ]
    with torch.no_grad():
        tokens = model.patch_embed(torch.cat([f.noisy for f in families])) + model.pos_embed
        return float(model.blocks(tokens).std())


def export(options: argparse.Namespace) -> None:
    """Write the encoder alone, in half precision, its residual stream scaled to `options.stream_std` at the end."""
    state = torch.load(options.out / "checkpoint.pt", weights_only=True)["model"]
    prefix = "encoder."
    encoder = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    model = create_nano(pretrained=False, seed=0)
    model.load_state_dict(encoder)
    scale_stream(encoder, options.stream_std / stream_std(model))
    options.export.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in encoder.items()}, options.export)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="folder of checkpoint and log")
    parser.add_argument("--steps", type=int, default=4800, help="optimiser steps in all")
    parser.add_argument("--objects", type=int, default=84, help="objects per step, each in two views")
    parser.add_argument("--stacks", type=int, default=44, help="spectrogram-like pictures per step, likewise")
    parser.add_argument("--kept", type=int, default=32, help="visible patches of 64")
    parser.add_argument("--predicted", type=int, default=16, help="hidden patches predicted per image")
    parser.add_argument(
        "--preference", type=float, default=0.0, help="of visible patches for objects, 0 to 1"
    )
    parser.add_argument("--difficulty", type=float, default=1.0, help="of the pictures of objects, 0 to 1")
    parser.add_argument("--whole", type=int, default=200, help="last steps, without hidden patches")
    parser.add_argument("--lr", type=float, default=1.2e-3, help="highest learning rate")
    parser.add_argument(
        "--cooldown", type=int, default=1200, help="last steps, in which the learning rate falls"
    )
    parser.add_argument("--warmup", type=int, default=200, help="steps of linear warm-up")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay of matrices")
    parser.add_argument("--weights", default="{}", help="JSON of loss weights that differ from the defaults")
    parser.add_argument("--compile", action="store_true", help="a fifth faster; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument(
        "--export", type=Path, help="write the checkpoint's encoder to this file instead of training"
    )
    parser.add_argument(
        "--stream-std", type=float, default=10.0, help="of the exported residual stream at its end"
    )
    options = parser.parse_args()
    # The pictures' tails are full of denormal numbers, which slow the processor down severalfold.
    torch.set_flush_denormal(True)
    if options.export:
        export(options)
    else:
        train(options)


if __name__ == "__main__":
    main()
