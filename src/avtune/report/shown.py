"""A clip with what a model says of it, as pages show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from avtune.tasks import Prediction


@dataclass(frozen=True)
class ShownClip:
    """A clip and what a model says of it.

    Attributes:
        name: What to call the clip, usually its file name.
        prediction: The answer.
        video: The clip's media file; ``None``: none is shown.
        true: The truth as the task's target holds it; ``None`` where it is not known.
    """

    name: str
    prediction: Prediction
    video: Path | None = None
    true: NDArray[Any] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes or answers."""
        return self.prediction.labels
