"""The retrieval loss on the processes that torchrun started: each has some of the clips.

Usage: ``torchrun --nproc-per-node 2 retrieval_driver.py FILE``. The first process writes the loss and the gradient.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from avtune.config import HeadConfig, InputConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.tasks import create_task
from avtune.transforms import Batch

CLIPS, WIDTH = 7, 5
SOURCES = ["a.mp4", "b.mp4", "c.mp4", "a.mp4", "d.mp4", "e.mp4", "f.mp4"]
SOUND = [True, True, False, True, True, True, True]


def own_part(rows: list[int]) -> tuple[float, int, torch.Tensor]:
    """Loss, count and gradient of a weight that makes all vectors, for some of the clips."""
    task = create_task(("bell",), InputConfig(segments=2), HeadConfig(task="retrieval"))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    place = torch.zeros((), dtype=torch.float64, requires_grad=True)
    features = torch.randn(CLIPS, 2, WIDTH, generator=generator, dtype=torch.float64)[rows]
    outputs = torch.nn.functional.normalize(features @ weight, dim=-1)
    yes = torch.ones(len(rows), dtype=torch.bool)
    batch = Batch(
        yes, yes, torch.tensor([SOUND[k] for k in rows]), yes, yes[:, None].expand(-1, 2),
        torch.zeros(len(rows)).long(), [f"clip{k}" for k in rows], sources=[SOURCES[k] for k in rows],
    )  # fmt: skip
    nothing = torch.zeros(0)
    encoded = Encoded(nothing, nothing, nothing, nothing, Notes(records={"temperature": [0.1 * place.exp()]}))
    loss = task.loss(outputs, encoded, batch)
    loss.total.backward()
    assert weight.grad is not None
    assert place.grad is not None
    return float(loss.total.detach()), loss.count, torch.cat([weight.grad.flatten(), place.grad.flatten()])


if __name__ == "__main__":
    dist.init_process_group("gloo")
    total, count, gradient = own_part([[0, 1, 2, 3, 4], [5, 6]][dist.get_rank()])
    sums = torch.cat([torch.tensor([total, float(count)], dtype=torch.float64), gradient])
    dist.all_reduce(sums)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(sums.tolist()))
    dist.destroy_process_group()
