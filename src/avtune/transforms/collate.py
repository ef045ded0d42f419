"""Prepared clips to batches; clips that could not be read travel along by name, never silently dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from avtune.transforms.prepared import Prepared


@dataclass(frozen=True)
class Sample:
    """One clip of a dataset.

    Attributes:
        name: The clip's name within its dataset.
        prepared: Its tensors.
        target: Its truth, a tensor of the task's shape; None where there is none.
        question: What is asked about it, as word numbers int64 (words,); None where nothing is.
        source: The file that it was cut from; clips that share one are no strangers to each other.
    """

    name: str
    prepared: Prepared
    target: Tensor | None = None
    question: Tensor | None = None
    source: str = ""


@dataclass(frozen=True)
class Damaged:
    """A clip that could not be read.

    Attributes:
        name: The clip's name within its dataset.
        path: Its file.
        problem: What is wrong with it, one line.
    """

    name: str
    path: str
    problem: str


@dataclass(frozen=True)
class Batch:
    """Clips of equal shape; B may be 0 where none could be read (then the tensors have no other axes).

    Attributes:
        frames: uint8 (B, T, 3, size, size), not normalised.
        spectrogram: float32 (B, T, rows, columns), normalised, or (B, 1, rows, columns) where all segments hear the
            same.
        has_audio: bool (B,).
        has_video: bool (B,).
        valid: bool (B, T).
        target: (B, ...) or None.
        names: The clips, in order.
        question: int64 (B, words) or None.
        sources: Each clip's file, in the same order.
        notes: Each clip's remarks, in the same order.
        damaged: Clips that are missing from the batch since they could not be read.
    """

    frames: Tensor
    spectrogram: Tensor
    has_audio: Tensor
    has_video: Tensor
    valid: Tensor
    target: Tensor | None
    names: list[str]
    question: Tensor | None = None
    sources: list[str] = field(default_factory=list)
    notes: list[tuple[str, ...]] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of clips, B."""
        return len(self.names)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the data loader calls this where it pins."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            frames=change(self.frames),
            spectrogram=change(self.spectrogram),
            has_audio=change(self.has_audio),
            has_video=change(self.has_video),
            valid=change(self.valid),
            target=None if self.target is None else change(self.target),
            question=None if self.question is None else change(self.question),
        )


def collate(samples: Sequence[Sample | Damaged]) -> Batch:
    """Stack samples into a batch and list the damaged ones beside it.

    Args:
        samples: What the dataset returned, in order.

    Raises:
        ValueError: If some samples have a target or a question and others not, or their shapes differ.
    """
    good = [sample for sample in samples if isinstance(sample, Sample)]
    damaged = [sample for sample in samples if isinstance(sample, Damaged)]
    return Batch(
        frames=_stack([sample.prepared.frames for sample in good], torch.uint8),
        spectrogram=_stack([sample.prepared.spectrogram for sample in good], torch.float32),
        has_audio=_stack([sample.prepared.has_audio for sample in good], torch.bool),
        has_video=_stack([sample.prepared.has_video for sample in good], torch.bool),
        valid=_stack([sample.prepared.valid for sample in good], torch.bool),
        target=_optional("target", good),
        names=[sample.name for sample in good],
        question=_optional("question", good),
        sources=[sample.source for sample in good],
        notes=[sample.prepared.notes for sample in good],
        damaged=damaged,
    )


def _optional(field: Literal["target", "question"], samples: Sequence[Sample]) -> Tensor | None:
    having = [value for sample in samples if (value := getattr(sample, field)) is not None]
    if having and len(having) != len(samples):
        without = next(sample.name for sample in samples if getattr(sample, field) is None)
        raise ValueError(f"{without} has no {field} while other samples of the batch have one")
    return torch.stack(having) if having else None


def _stack(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.stack(tensors) if tensors else torch.empty(0, dtype=dtype)
