"""What is learned: batch to loss, outputs to scores. One file per task, listed in the dict at the foot."""

from __future__ import annotations

from collections.abc import Callable

from avtune.config import HeadConfig, InputConfig
from avtune.errors import AvtuneError
from avtune.options import choose
from avtune.tasks.base import Loss, Rows, Scores, Task, Truth
from avtune.tasks.classification import ClassificationTask
from avtune.tasks.localization import LocalizationTask
from avtune.tasks.mask_prediction import MaskPrediction
from avtune.tasks.parsing import ParsingPrediction, ParsingTask
from avtune.tasks.predictions import ClassPrediction, Prediction, TimelineEvent, TimelinePrediction, Window
from avtune.tasks.question_answering import AnswerPrediction, QuestionAnsweringTask
from avtune.tasks.retrieval import RetrievalPrediction, RetrievalTask
from avtune.tasks.segmentation import SegmentationTask
from avtune.tasks.single_stream import SingleStreamTask

__all__ = [
    "TASKS",
    "AnswerPrediction",
    "ClassPrediction",
    "ClassificationTask",
    "LocalizationTask",
    "Loss",
    "MaskPrediction",
    "ParsingPrediction",
    "ParsingTask",
    "Prediction",
    "QuestionAnsweringTask",
    "RetrievalPrediction",
    "RetrievalTask",
    "Rows",
    "Scores",
    "SegmentationTask",
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
    "segmentation": SegmentationTask,
    "parsing": ParsingTask,
    "retrieval": RetrievalTask,
    "question_answering": QuestionAnsweringTask,
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
    if head.streams == "alone" and task.streams_apart:
        raise AvtuneError(
            f"the task {head.task} compares both streams: none can be scored alone; leave out train.floors"
        )
    return SingleStreamTask(task) if head.streams == "alone" else task
