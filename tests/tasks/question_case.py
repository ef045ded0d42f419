"""Questions, a task that answers them, and batches that hold nothing but who asks what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Question, Record
from avtune.tasks import QuestionAnsweringTask, create_task
from avtune.transforms import Batch

ANSWERS = ("yes", "no", "two")
WORDS = ("<pad>", "Is", "there", "a", "drum", "sound", "Where", "is", "the", "acoustic_guitar")
SOURCES = ["a.mp4", "b.mp4", "b.mp4"]
VALID = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)


def task_of(**options: Any) -> QuestionAnsweringTask:
    config = HeadConfig(task="question_answering", hidden=8, options=options)
    task = create_task(ANSWERS, InputConfig(segments=3), config, WORDS)
    assert isinstance(task, QuestionAnsweringTask)
    return task


def record(
    answer: str, kind: tuple[str, str] = ("Audio", "Counting"), words: str = "Is there a drum"
) -> Record:
    return Record("clip/1", Path("clip.mp4"), (), question=Question(tuple(words.split()), answer, kind))


def batch_of(target: Tensor | None, sources: list[str] | None = None, valid: Tensor = VALID) -> Batch:
    sources = SOURCES if sources is None else sources
    here = torch.ones(len(sources)).bool()
    blank, names = torch.zeros(len(sources)), [f"clip {k}" for k in range(len(sources))]
    return Batch(blank, blank, here, here, valid, target, names, sources=sources)
