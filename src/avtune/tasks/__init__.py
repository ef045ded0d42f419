"""What is learned: batch to loss, outputs to scores. One file per task, listed in the dict at the foot."""

from __future__ import annotations

from collections.abc import Callable

from avtune.config import HeadConfig, InputConfig
from avtune.options import choose
from avtune.tasks.base import Loss, Rows, Scores, Task, Truth
from avtune.tasks.classification import ClassificationTask
from avtune.tasks.localization import LocalizationTask
from avtune.tasks.predictions import ClassPrediction, Prediction, TimelineEvent, TimelinePrediction, Window
from avtune.tasks.single_stream import SingleStreamTask

__all__ = [
    "TASKS",
    "ClassPrediction",
    "ClassificationTask",
    "LocalizationTask",
    "Loss",
    "Prediction",
    "Rows",
    "Scores",
    "SingleStreamTask",
    "Task",
    "TimelineEvent",
    "TimelinePrediction",
    "Truth",
    "Window",
    "create_task",
]

TASKS: dict[str, Callable[[tuple[str, ...], InputConfig, HeadConfig, tuple[str, ...]], Task]] = {
    "localization": LocalizationTask,
    "classification": ClassificationTask,
}


def create_task(
    labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
) -> Task:
    """The task that a recipe names.

    Args:
        labels: Names of the classes or answers.
        input: What the model sees of a clip.
        head: Names the task.
        words: Words that questions are made of, in the order of their numbers.

    Raises:
        avtune.options.OptionError: There is no such task.
        avtune.errors.AvtuneError: Its settings do not fit together.
    """
    task = choose("task", head.task, TASKS)(labels, input, head, words)
    return SingleStreamTask(task) if head.streams == "alone" else task
