"""What is learned: batch to loss, outputs to scores. One file per task, listed in the dict at the foot."""

from __future__ import annotations

from collections.abc import Callable

from avtune.config import HeadConfig, InputConfig
from avtune.tasks.base import Loss, Scores, Task
from avtune.tasks.localization import LocalizationTask
from avtune.tasks.single_stream import SingleStreamLocalization

__all__ = ["TASKS", "LocalizationTask", "Loss", "Scores", "SingleStreamLocalization", "Task"]

TASKS: dict[str, Callable[[tuple[str, ...], InputConfig, HeadConfig], Task]] = {
    "localization": LocalizationTask,
    "localization_single_stream": SingleStreamLocalization,
}
