"""The contract between a task and the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.encoder import Encoded
from avtune.transforms import Batch

Counts = npt.NDArray[np.int64]


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
        value: The main score, higher is better.
        details: Further values, JSON-able.
    """

    name: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """What a model is trained and scored on.

    Args:
        labels: Names of the classes, without background.
        input: What the model sees of a clip.
        head: Settings of the head and the loss.
    """

    def __init__(self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig) -> None:
        self.labels = labels
        self.input = input
        self.head = head

    @abstractmethod
    def build_head(self, audio_dim: int, video_dim: int) -> nn.Module:
        """The module that maps :class:`avtune.encoder.Encoded` to outputs."""

    @abstractmethod
    def target(self, record: Record) -> Tensor:
        """The truth of one clip, as the batch will hold it."""

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
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs as probabilities, for predictions."""

    @abstractmethod
    def count(self, outputs: Tensor, batch: Batch) -> Counts:
        """Integer counts of a batch that add up over batches and processes to what ``score`` reads."""

    @abstractmethod
    def majority(self, truths: Tensor, scores: Scores) -> float:
        """The score of always giving the most frequent answer of the training clips.

        Args:
            truths: The training clips' truths, of any shape.
            scores: What was scored, which knows how often each answer was right.
        """

    @abstractmethod
    def score(self, counts: Counts) -> Scores:
        """Scores from summed counts."""
