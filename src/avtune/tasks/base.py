"""The contract between a task, the training loop and those who predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.tasks.predictions import Prediction, Window
from avtune.transforms import Batch


class Tally(Protocol):
    """What batches leave for scoring: it adds up over batches and processes, in any order, and can be pickled."""

    def __add__(self, other: Any, /) -> Any: ...


Answer: TypeAlias = Callable[[Batch], Tensor]
"""A rule that answers a batch without a model: outputs of the shape that the task's head gives."""


@dataclass
class Loss:
    """A batch's loss as a sum and what it is a sum over.

    The loop divides by the count over all processes, so that a run does not depend on how the global batch
    is spread.

    Attributes:
        total: Sum of the losses of all items, a scalar with gradient.
        count: Number of items (for localization: valid segments).
    """

    total: Tensor
    count: int


@dataclass
class Scores:
    """What an evaluation found.

    Attributes:
        name: Name of the main score.
        value: The main score, in [0, 1], higher is better.
        details: Further values, JSON-able. ``per_class`` (rows), ``confusion`` (counts), ``tables`` (rows by title)
            and ``notes`` (sentences) are shown on a run's page.
        floors: What is reached without any model, such as chance, by name.
    """

    name: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)


@dataclass
class Rows:
    """A tally that keeps a row for each item, for scores that are no sums (average precision, ranks).

    Attributes:
        columns: Arrays of equal length by name.
    """

    columns: dict[str, npt.NDArray[Any]]

    def __add__(self, other: Self) -> Self:
        """The rows of both."""
        return type(self)({
            name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()
        })  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What training clips teach those who answer without a model.

    Attributes:
        target: A clip's target; for targets with one entry per segment only those of existing segments.
        question: Its question as word numbers; ``None``: nothing is asked.
    """

    target: Tensor
    question: Tensor | None = None


class Task(ABC):
    """What a model is trained and scored on.

    Args:
        labels: Names of the classes (without background) or answers.
        input: What the model sees of a clip.
        head: Settings of the head and the loss.
        words: Words that questions are made of, in the order of their numbers.

    Attributes:
        target_per_segment: Whether the target's first axis are the clip's segments, so that it can be cropped.
        target_is_picture: Whether the target's last axis runs from left to right, so that it is mirrored with the
            frames.
        needs_stages: Whether the head reads every stage of the video tower (:attr:`Encoded.video_stages`).
        streams_apart: Whether each stream is encoded without the other, whatever the method exchanges.
        question_length: Words of a question, filled up; 0: nothing is asked.
        scored_in_couples: Whether scoring compares clips: it then sees them two and two, whatever the batch size.
        background: Class index by which a target says that sound and frames show no event together, for
            ``train.mining``; ``None``: no target says so.
        mixable: Whether targets can be mixed (``train.mixup``).
    """

    target_per_segment = False
    target_is_picture = False
    needs_stages = False
    streams_apart = False
    question_length = 0
    scored_in_couples = False
    background: int | None = None
    mixable = False

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        self.labels = labels
        self.input = input
        self.head = head
        self.words = words

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self.labels

    @abstractmethod
    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """The module that maps :class:`avtune.encoder.Encoded` to outputs."""

    @abstractmethod
    def target(self, record: Record) -> Tensor:
        """The truth of one clip, as the batch will hold it.

        Raises:
            avtune.datasets.DatasetError: It lies in a file of its own that is missing or damaged.
        """

    def soft_target(self, target: Tensor) -> Tensor:
        """A batch's targets as floats whose proportions can be added up, where the task is ``mixable``."""
        raise NotImplementedError(f"targets of the task {self.head.task} cannot be mixed")

    def question(self, record: Record) -> Tensor | None:
        """What is asked about a clip, as word numbers; here nothing."""
        return None

    def encode_question(self, question: str | None) -> Tensor | None:
        """A person's question as word numbers; here there must be none.

        Raises:
            AvtuneError: It is not what the task answers, or holds unknown words.
        """
        if question is not None:
            raise AvtuneError(f"the task {self.head.task} answers no questions; leave the question out")
        return None

    def strangers(self, training: bool) -> Literal["plain", "adapted"] | None:
        """Which frames of other files the head compares a clip's sound with, see :mod:`avtune.tasks.strangers`.

        Args:
            training: Whether the network trains.

        Returns:
            ``plain``: as the frozen tower alone sees them; ``adapted``: as encoded already; ``None``, here: none.
        """
        return None

    def begin(self, head: nn.Module) -> None:
        """Prepare a new run's head, once, before its first update; here nothing.

        Raises:
            AvtuneError: It is to begin with weights that are absent or do not fit.
        """
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """The loss of a batch."""

    def foreground(self, batch: Batch) -> Tensor:
        """Segments that methods' own losses may read as showing what is to be learned.

        Returns:
            (batch * T,) bool; here all that exist in their files.
        """
        return batch.valid.flatten()

    @abstractmethod
    def tally(self, outputs: Tensor, batch: Batch) -> Tally:
        """What a batch leaves for :meth:`score`."""

    @abstractmethod
    def score(self, tally: Any) -> Scores:
        """Scores from the tallies of all batches, added up."""

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """Rules that look at no clip, learned from the training clips: what every score has to beat.

        Args:
            truths: The training clips'.

        Returns:
            Rules by the floor's name, such as ``majority``.
        """
        return {}

    @abstractmethod
    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """What a prediction needs of a batch of windows: tensors by name, clips along the first axis."""

    @abstractmethod
    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> Prediction:
        """The answer for a file.

        Args:
            path: The file.
            windows: At least one, in order of their beginning; they may overlap.
            question: What was asked.
        """
