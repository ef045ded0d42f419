"""Everything that a resumed run needs to go on bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtune.config import PretrainingRunConfig, RunConfig
from avtune.errors import AvtuneError
from avtune.files import remove_leftovers, write_atomically

FILE = "last.pt"
DIGEST_BYTES = 32

# What may change between two stretches of a run without changing its weights.
WITHOUT_EFFECT = (
    "data.cache",
    "data.cache_folder",
    "data.cache_gigabytes",
    "data.workers",
    "train.checkpoint",
    "train.floors",
    "train.save_every",
)


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Updates made.
        epoch: Epoch under way, from 0.
        window: Windows of this epoch that are done: its updates, and what held no readable clip.
        best: Best validation score so far.
        best_step: Update after which it was reached.
        stale_epochs: Epochs since then.
        finished: Whether training is over.
        seconds: Time spent training, all stretches together.
        damaged: Files that could not be read, by name, with what was wrong.
    """

    step: int = 0
    epoch: int = 0
    window: int = 0
    best: float = float("-inf")
    best_step: int = 0
    stale_epochs: int = 0
    finished: bool = False
    seconds: float = 0.0
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass
class RunState:
    """A saved state.

    It holds no random generator: each update seeds its own (see :func:`avtune.train.order.update_seed`).

    Attributes:
        progress: Where the run stands.
        network: Trained weights and running statistics.
        best_network: The same at the best validation score; empty before the first.
        optimizer: The optimiser's state.
        scaler: The fp16 loss scaler's state; empty without one.
        identity: What has to be the same for the run to go on: see :func:`run_identity`.
    """

    progress: Progress
    network: dict[str, Tensor]
    best_network: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    identity: dict[str, str]


class ResumeError(AvtuneError):
    """A saved state that does not belong to this run or cannot be read."""


def run_identity(
    config: RunConfig | PretrainingRunConfig, names: list[str], processes: int
) -> dict[str, str]:
    """What makes a run this run: each setting that has an effect, the clips, the number of processes.

    Args:
        config: The configuration.
        names: Names of the training clips, in order.
        processes: Number of processes.
    """
    settings = {
        f"{section}.{name}": json.dumps(value, sort_keys=True)
        for section, values in asdict(config).items()
        for name, value in values.items()
    }
    for name in WITHOUT_EFFECT:
        settings.pop(name, None)
    clips = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return {**settings, "number of processes": str(processes), "training clips": clips}


def save_state(folder: Path, state: RunState) -> None:
    """Write the state to ``folder/last.pt``, atomically: a SHA-256 digest, then what ``torch.save`` makes of it."""
    buffer = io.BytesIO()
    torch.save({**vars(state), "progress": asdict(state.progress)}, buffer)
    content = buffer.getvalue()
    write_atomically(folder / FILE, hashlib.sha256(content).digest() + content)
    remove_leftovers(folder / FILE)


def load_state(folder: Path, identity: dict[str, str]) -> RunState | None:
    """The state saved in ``folder``, or ``None`` if there is none.

    Args:
        folder: The run's ``state`` folder.
        identity: Of the run that wants to go on.

    Raises:
        ResumeError: If the file is damaged, or the state is of a run with other settings or clips.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        stored = path.read_bytes()
        # torch.load overlooks flipped bits, with which a run would go on to other weights.
        if hashlib.sha256(stored[DIGEST_BYTES:]).digest() != stored[:DIGEST_BYTES]:
            raise ValueError("wrong digest")
        content = torch.load(io.BytesIO(stored[DIGEST_BYTES:]), map_location="cpu", weights_only=True)
        state = RunState(**{**content, "progress": Progress(**content["progress"])})
        differing = sorted(name for name in identity if state.identity.get(name) != identity[name])
    except Exception as error:
        raise ResumeError(
            f"{path}: damaged, or not a state of avtune ({type(error).__name__}); delete it to start the run anew"
        ) from error
    if differing:
        first = differing[0]
        raise ResumeError(
            f"{path}: belongs to a run with other settings or clips ({first} was {state.identity.get(first)}, now "
            f"{identity[first]}); train into another folder, or delete this one"
        )
    return state
