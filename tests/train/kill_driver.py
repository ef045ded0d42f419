"""Kills training runs and resumes them; what came of it goes to a JSON file.

A program of its own: it forks a process for each run, so that torch is imported once, and a process that is
killed by SIGKILL has to be a real one. Usage: ``python kill_driver.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Two threads that wait for each other are slow on a busy machine, and every run here is tiny.
os.environ["OMP_NUM_THREADS"] = "1"

CLIPS = 13
SCENARIOS: dict[str, dict[str, Any]] = {
    # 13 clips by 4: updates 0 to 3 are the first epoch's, 4 to 7 the second's.
    "each_update": {"train": {"save_every": 1}, "dropout": True},
    "some_updates": {"train": {"save_every": 3}, "dropout": True},
    "each_epoch": {"train": {"save_every": None}, "dropout": True},
    "accumulated": {"train": {"save_every": 1, "batch_size": 2, "accumulate": 2}, "dropout": True},
    "loaded": {"train": {"save_every": 2, "epochs": 1}, "workers": 2},
}
KILLS = {
    "each_update": [("stepped", k) for k in range(8)] + [("forward", k) for k in (1, 6)],
    "some_updates": [("stepped", k) for k in (0, 4, 6)] + [("saving", k) for k in (0, 1, 3, 5)],
    "each_epoch": [("stepped", 6), ("evaluated", 0), ("saving", 2)],
    "accumulated": [("forward", 3), ("stepped", 5), ("saving", 4)],
    "loaded": [("stepped", 2)],
}
SIGNALS = [
    ("some_updates", "SIGTERM", "self"),
    ("some_updates", "SIGINT", "self"),
    ("each_epoch", "SIGTERM", "epoch end"),
    ("loaded", "SIGTERM", "group"),
]


def make_trainer(folder: Path, scenario: dict[str, Any], observer: Any) -> Any:
    from made_up_clips import MadeUpClips
    from training_case import small_config, small_trainer

    workers = scenario.get("workers", 0)
    validation = MadeUpClips(5, seed=1) if not workers else None
    clips = MadeUpClips(CLIPS, damaged=(4,))
    return small_trainer(
        small_config(**scenario["train"]), folder, clips, validation, dropout=scenario.get("dropout", False),
        observer=observer, workers=workers,
    )  # fmt: skip


def kill_at(place: str, number: int, act: Callable[[], None]) -> Any:
    """An observer (and patches) that call ``act`` at the given occasion of the given place."""
    import avtune.files
    from avtune.train import Observer

    seen = {"stepped": 0, "evaluated": 0, "saving": 0}

    def count(kind: str) -> None:
        if kind == place and seen[kind] == number:
            act()
        seen[kind] += 1

    class Killer(Observer):
        def stepped(self, row: dict[str, Any]) -> None:
            count("stepped")

        def evaluated(self, row: dict[str, Any]) -> None:
            count("evaluated")

    # The temporary file is written here, and not yet in its place.
    avtune.files.os.fsync = lambda handle: count("saving")
    return Killer()


def in_process(run: Callable[[], int]) -> int:
    """Run in a forked process; its wait status."""
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            code = run()
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return os.waitpid(child, 0)[1]


def train(folder: Path, scenario: dict[str, Any], place: str = "", number: int = -1, act: Any = None) -> int:
    import torch

    from avtune.train import Stopped

    trainer = make_trainer(folder, scenario, kill_at(place, number, act))
    if place == "forward":
        calls = iter(range(10**6))
        trainer.network.head.register_forward_hook(lambda *_: act() if next(calls) == number else None)
    try:
        result = trainer.fit()
    except Stopped as stop:
        (folder / "stopped.txt").write_text(f"{trainer.progress.step} {stop}")
        return 7
    torch.save({"best": result.weights, "last": trainer.network.trained_state()}, folder / "result.pt")
    (folder / "damaged.json").write_text(json.dumps(result.progress.damaged))
    return 0


def outcome(folder: Path, unbroken: Path) -> dict[str, Any]:
    """How a resumed run compares with the unbroken one."""
    import torch

    from avtune.train.log import read_log

    ours, theirs = (torch.load(run / "result.pt", weights_only=True) for run in (folder, unbroken))
    logs = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(run / "log.jsonl")]
        for run in (folder, unbroken)
    ]
    return {
        "differing": [
            f"{kind} {name}" for kind in theirs for name in theirs[kind]
            if not torch.equal(ours[kind][name], theirs[kind][name])
        ],
        "weights": sum(len(kind) for kind in ours.values()),
        "log": logs[0],
        "unbroken_log": logs[1],
        "damaged": json.loads((folder / "damaged.json").read_text()),
        "left_behind": [path.name for path in folder.rglob(".*")],
    }  # fmt: skip


def kill_and_resume(root: Path, name: str, place: str, number: int) -> dict[str, Any]:
    folder = root / f"{name}_{place}_{number}"

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    status = in_process(lambda: train(folder, SCENARIOS[name], place, number, die))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    resumed = in_process(lambda: train(folder, SCENARIOS[name]))
    return {"killed": killed, "resumed": resumed, **outcome(folder, root / name)}


def signal_and_resume(root: Path, name: str, which: str, how: str) -> dict[str, Any]:
    folder = root / f"{name}_{which}_{how.replace(' ', '_')}"
    number = getattr(signal, which)

    def ask() -> None:
        if how == "group":
            os.killpg(os.getpgid(0), number)
        else:
            os.kill(os.getpid(), number)

    place = ("evaluated", 0) if how == "epoch end" else ("stepped", 1)
    status = in_process(lambda: train(folder, SCENARIOS[name], *place, ask))
    stopped = (folder / "stopped.txt").read_text() if (folder / "stopped.txt").exists() else ""
    resumed = in_process(lambda: train(folder, SCENARIOS[name]))
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "stopped": stopped, "resumed": resumed, **outcome(folder, root / name)}


def main(root: Path) -> None:
    # Imported here once and inherited by every forked run; a loader's process must not import it all.
    import training_case  # noqa: F401

    results: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        start = time.perf_counter()
        assert in_process(lambda scenario=scenario, name=name: train(root / name, scenario)) == 0
        for place, number in KILLS[name]:
            results[f"{name}-{place}-{number}"] = kill_and_resume(root, name, place, number)
        print(name, round(time.perf_counter() - start, 1), "s", file=sys.stderr)
    for name, which, how in SIGNALS:
        results[f"{name}-{which}-{how}"] = signal_and_resume(root, name, which, how)
    (root / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
