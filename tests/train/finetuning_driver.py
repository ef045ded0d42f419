"""Whole encoders on the processes that torchrun started; weights and losses go to files.

Usage: ``torchrun --nproc-per-node 2 finetuning_driver.py FOLDER``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from finetuning_case import WholeClips, finetuner, finetuning_config
from torch import Tensor

# Objective, settings and clips. Some update of the last has no readable clip on one process.
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "both_streams": ("avsiam", {"batch_size": 2}, {"count": 7}),
    "cav_mae": ("cav_mae", {"batch_size": 2}, {"count": 7}),
    "mixed": ("avsiam", {"batch_size": 1, "accumulate": 2, "epochs": 4, "drop_stream": 0.7}, {"count": 7}),
    "damaged": ("avsiam", {"batch_size": 1, "drop_stream": 0.7}, {"count": 7, "damaged": (0, 3, 5)}),
}  # fmt: skip


def run(folder: Path, name: str, **changed: Any) -> dict[str, Tensor]:
    """Train by plain gradient descent, where the rounding of a sum stays one."""
    objective, train, clips = RUNS[name]
    with patch(
        "avtune.train.updates.build_optimizer", lambda net, _: torch.optim.SGD(net.parameters(), lr=0.1)
    ):
        trainer = finetuner(
            finetuning_config(objective, **{**train, **changed}), folder / name, WholeClips(**clips)
        )
        trainer.fit()
    return trainer.network.trained_state()


def main(root: Path) -> None:
    for name in RUNS:
        torch.save(run(root, name), root / f"{name}_{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
