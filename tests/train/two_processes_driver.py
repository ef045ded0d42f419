"""Runs training cases on the processes that torchrun started; facts and weights go to files.

Usage: ``torchrun --nproc-per-node 2 two_processes_driver.py FOLDER``. In the last case one process kills itself; a
second call goes on with that case.
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
from training_case import WITHOUT_BATCH_NORM, small_config, small_model, small_trainer

from avtune.errors import AvtuneError
from avtune.train import Observer, evaluate

# For each case: settings of the run on two processes, those of its twin on one, and the clips of both. Adam divides
# a gradient by its own size: where it ought to be exactly zero (a shift that batch normalisation removes, a unit
# whose ReLU is closed) the rounding noise becomes a full step. Plain gradient descent has no such weights.
CASES: dict[str, dict[str, Any]] = {
    "paper": {"two": {"batch_size": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(13), "descent": True},
    "paper_adamw": {"two": {"batch_size": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(13)},
    "without_batch_norm": {
        "two": {"batch_size": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(13),
        "options": WITHOUT_BATCH_NORM, "descent": True,
    },
    "accumulated": {
        "two": {"batch_size": 1, "accumulate": 2}, "one": {"batch_size": 4}, "clips": MadeUpClips(11),
        "options": WITHOUT_BATCH_NORM,
    },
    "fewer_clips_than_processes": {
        "two": {"batch_size": 1}, "one": {"batch_size": 2}, "clips": MadeUpClips(3),
        "options": WITHOUT_BATCH_NORM, "descent": True,
    },
    # Some update has only damaged clips on one process, and some on both.
    "damaged": {
        "two": {"batch_size": 1}, "one": {"batch_size": 2}, "clips": MadeUpClips(9, damaged=(0, 2, 4, 5, 6, 8)),
        "options": WITHOUT_BATCH_NORM,
    },
}  # fmt: skip
VALIDATION = MadeUpClips(7, damaged=(3,), seed=1)


def run_case(folder: Path, case: dict[str, Any], processes: str) -> dict[str, Any]:
    """Train one of ``CASES`` on ``one`` or ``two`` processes."""
    config = small_config(case.get("options"), lr=1e-3, **case[processes])
    if not case.get("descent"):
        return fit(folder, config, case["clips"], VALIDATION)
    with patch(
        "avtune.train.updates.build_optimizer", lambda net, _: torch.optim.SGD(net.parameters(), lr=0.1)
    ):
        return fit(folder, config, case["clips"], VALIDATION)


def fit(
    folder: Path, config: Any, clips: Any, validation: Any = None, observer: Any = None
) -> dict[str, Any]:
    """Train; facts about how it ended."""
    trainer = small_trainer(config, folder, clips, validation, observer=observer)
    try:
        trainer.fit()
        error = ""
    except AvtuneError as problem:
        error = f"{type(problem).__name__}: {problem}"
    if trainer.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(trainer.network.trained_state(), folder / "last_weights.pt")
    progress = trainer.progress
    return {"error": error, "damaged": progress.damaged, "best": progress.best, "step": progress.step}


def at(step: int, rank: int, number: signal.Signals) -> Observer:
    """Sends this process a signal after the update ``step``, on one rank only."""

    class Signaller(Observer):
        def stepped(self, row: dict[str, Any]) -> None:
            if row["step"] == step and int(os.environ["RANK"]) == rank:
                os.kill(os.getpid(), number)

    return Signaller()


def scored(batch_size: int) -> dict[str, Any]:
    """The score of untrained weights; the same for any number of processes."""
    model = small_model(small_config())
    found = evaluate(model.network, model.task, VALIDATION, batch_size=batch_size)
    assert found.scores is not None
    return {"clips": found.clips, "damaged": found.damaged, "scores": vars(found.scores)}


def unkilled_runs(root: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, case in CASES.items():
        facts[name] = run_case(root / name, case, "two")
    facts["scored"] = [scored(batch_size) for batch_size in (1, 3)]
    facts["all_damaged"] = fit(root / "all_damaged", small_config(), MadeUpClips(3, damaged=(0, 1, 2)))
    with_nan = MadeUpClips(9, nan=(4,))
    facts["nan"] = fit(root / "nan", small_config(WITHOUT_BATCH_NORM, batch_size=1, save_every=1), with_nan)
    config, clips = small_config(batch_size=2, save_every=2), MadeUpClips(13)
    facts["unbroken"] = fit(root / "unbroken", config, clips)
    facts["asked"] = fit(root / "asked", config, clips, observer=at(4, 1, signal.SIGTERM))
    facts["resumed"] = fit(root / "asked", config, clips)
    return facts


def main(root: Path) -> None:
    rank = os.environ["RANK"]
    config, clips = small_config(batch_size=2, save_every=2), MadeUpClips(13)
    if not (root / "killed").exists():
        facts = unkilled_runs(root)
        (root / f"facts_{rank}.json").write_text(json.dumps(facts))
        fit(root / "killed", config, clips, observer=at(5, 1, signal.SIGKILL))
        raise AssertionError("a process was to be killed")
    facts = fit(root / "killed", config, clips)
    (root / f"continued_{rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
