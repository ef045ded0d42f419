"""Pretrains on the processes that torchrun started; facts and weights go to files.

Usage: ``torchrun --nproc-per-node 2 pretraining_processes_driver.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from made_up_clips import MadeUpClips
from pretraining_case import small_pretrainer, small_pretraining
from two_processes_driver import at

from avtune.errors import AvtuneError

# For each case: settings of the run on two processes, those of its twin on one, the model, and the clips of both.
CASES: dict[str, dict[str, Any]] = {
    "avsiam": {"two": {"batch_size": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(7)},
    "cav_mae": {
        "two": {"batch_size": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(7), "objective": "cav_mae",
    },
    "accumulated": {
        "two": {"batch_size": 1, "accumulate": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(7),
        "options": {"contrast": "sigmoid"},
    },
    # Some update has only damaged clips on one process, and some on both.
    "damaged": {
        "two": {"batch_size": 1}, "one": {"batch_size": 2}, "clips": MadeUpClips(9, damaged=(0, 2, 4, 5, 6, 8)),
    },
    "sharded": {
        "two": {"batch_size": 1, "accumulate": 2, "shard": True}, "one": {"batch_size": 4}, "clips": MadeUpClips(7),
        "options": {"contrast": "sigmoid"},
    },
    "sharded_recomputed": {
        "two": {"batch_size": 2, "shard": True, "checkpoint": True}, "one": {"batch_size": 4}, "clips": MadeUpClips(7),
        "objective": "cav_mae",
    },
}  # fmt: skip


def run_case(folder: Path, case: dict[str, Any], processes: str, observer: Any = None) -> dict[str, Any]:
    """Train one of ``CASES`` on ``one`` or ``two`` processes, by plain gradient descent: Adam blows rounding up."""
    config = small_pretraining(case.get("objective", "avsiam"), None, case.get("options"), **case[processes])
    descent = patch("avtune.train.updates.build_optimizer", gradient_descent)
    sharded_descent = patch("avtune.train.pretraining.build_optimizer", gradient_descent)
    error = ""
    with descent, sharded_descent:
        trainer = small_pretrainer(config, folder, case["clips"], observer=observer)
        try:
            trainer.fit()
        except AvtuneError as problem:
            error = f"{type(problem).__name__}: {problem}"
    weights = trainer.weights()
    if trainer.accelerator.is_main_process:
        torch.save(weights, folder / "last_weights.pt")
    return {"error": error, "damaged": trainer.progress.damaged, "step": trainer.progress.step}


def gradient_descent(network: torch.nn.Module, _: Any) -> torch.optim.Optimizer:
    """With momentum, so that the optimiser has a state to lose."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return torch.optim.SGD(weights, lr=0.05, momentum=0.5)


def main(root: Path) -> None:
    facts = {name: run_case(root / name, case, "two") for name, case in CASES.items()}
    facts["stopped"] = run_case(root / "stopped", CASES["sharded"], "two", at(1, 1, signal.SIGTERM))
    facts["resumed"] = run_case(root / "stopped", CASES["sharded"], "two")
    (root / f"facts_{os.environ['RANK']}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
