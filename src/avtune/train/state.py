"""Everything that a resumed run needs to go on bit for bit."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtune.errors import AvtuneError
from avtune.train.files import write_atomically

FILE = "last.pt"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Updates made.
        epoch: Epoch under way, from 0.
        batch: Micro-batches of this epoch that are done.
        best: Best validation score so far.
        best_step: Update after which it was reached.
        stale_epochs: Epochs since then.
        finished: Whether training is over.
        seconds: Time spent training, all stretches together.
        damaged: Files that could not be read, by name, with what was wrong.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("-inf")
    best_step: int = 0
    stale_epochs: int = 0
    finished: bool = False
    seconds: float = 0.0
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass
class RunState:
    """A saved state.

    Attributes:
        progress: Where the run stands.
        network: Trained weights and running statistics.
        best_network: The same at the best validation score; empty before the first.
        optimizer: The optimiser's state.
        scaler: The fp16 loss scaler's state; empty without one.
        rng: State of the CPU's random generator.
        fingerprint: What has to be the same for the run to go on (configuration, clips).
    """

    progress: Progress
    network: dict[str, Tensor]
    best_network: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: Tensor
    fingerprint: str


class ResumeError(AvtuneError):
    """A saved state that does not belong to this run or cannot be read."""


def save_state(folder: Path, state: RunState) -> None:
    """Write the state to ``folder/last.pt``, atomically."""
    buffer = io.BytesIO()
    content = {**vars(state), "progress": asdict(state.progress)}
    torch.save(content, buffer)
    write_atomically(folder / FILE, buffer.getvalue())


def load_state(folder: Path, fingerprint: str) -> RunState | None:
    """The state saved in ``folder``, or ``None`` if there is none.

    Args:
        folder: The run's ``state`` folder.
        fingerprint: Of the run that wants to go on.

    Raises:
        ResumeError: If the file is damaged, or the state is of a run with other settings or clips.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = RunState(**{**content, "progress": Progress(**content["progress"])})
    except Exception as error:
        raise ResumeError(
            f"{path}: not a state of avtune ({error}); delete it to start the run anew"
        ) from error
    if state.fingerprint != fingerprint:
        raise ResumeError(
            f"{path}: belongs to a run with other settings or clips; train into another folder, or delete this one"
        )
    return state
