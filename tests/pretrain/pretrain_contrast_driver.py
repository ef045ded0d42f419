"""The contrastive losses on the processes that torchrun started: each has some of the clips.

Usage: ``torchrun --nproc-per-node 2 pretrain_contrast_driver.py FILE``. The first process writes, for each loss, the
mean over processes of loss and gradient, and the most numbers that a process kept of a single tensor.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from avtune.pretrain.contrast import Contrast

CLIPS, WIDTH = 24, 3
OWN = [list(range(14)), list(range(14, 24))]
LOSSES = {
    "both": ("softmax", "both"),
    "audio_to_video": ("softmax", "audio_to_video"),
    "video_to_audio": ("softmax", "video_to_audio"),
    "sigmoid": ("sigmoid", "both"),
}


def own_part(name: str, rows: list[int]) -> tuple[torch.Tensor, int]:
    """Loss and gradients in one vector, and the size of the largest tensor kept for the backward pass."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH, generator=generator).requires_grad_()
    audio, video = torch.randn(2, CLIPS, WIDTH, generator=generator)[:, rows] @ weight
    contrast = Contrast(*LOSSES[name], temperature=0.05)  # type: ignore[arg-type]
    kept = [0]

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = contrast(audio, video).loss
    loss.backward()
    gradients = [p.grad.flatten() for p in (weight, *contrast.parameters()) if p.grad is not None]
    return torch.cat([loss.detach()[None], *gradients]), max(kept)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    written = {}
    for loss_name in LOSSES:
        values, largest = own_part(loss_name, OWN[dist.get_rank()])
        most = torch.tensor(largest)
        dist.all_reduce(values)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        written[loss_name] = {"values": (values / dist.get_world_size()).tolist(), "largest": int(most)}
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(written))
    dist.destroy_process_group()
