"""Answering questions without looking at the clip: the floors of question answering."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from avtune.tasks.base import Answer, Truth
from avtune.transforms import Batch


def question_rules(truths: Iterable[Truth], answers: int) -> Mapping[str, Answer]:
    """Rules learned from the training questions.

    ``majority``: the most frequent answer. ``question only``: the most frequent answer to the very same question; where
    it was never asked, to those that begin alike for as many words as any does. Of equally frequent answers the one
    with the lower number.

    Args:
        truths: Of the training questions; a target's first entry is the answer's number.
        answers: Number of answers.

    Returns:
        Rules that give (batch, answers) with a one at the answer.
    """
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for truth in truths:
        answer = int(truth.target[0])
        asked = () if truth.question is None else tuple(truth.question.tolist())
        # The whole question, its padding included, is the longest of its beginnings.
        for length in range(len(asked) + 1):
            counts[asked[:length]][answer] += 1
    best = {begin: min(found, key=lambda answer: (-found[answer], answer)) for begin, found in counts.items()}

    def told(batch: Batch, chosen: list[int]) -> Tensor:
        outputs = torch.zeros(len(batch), answers, device=batch.valid.device)
        outputs[torch.arange(len(chosen)), chosen] = 1
        return outputs

    def majority(batch: Batch) -> Tensor:
        return told(batch, [best.get((), 0)] * len(batch))

    def question_only(batch: Batch) -> Tensor:
        assert batch.question is not None
        chosen = []
        for row in batch.question.tolist():
            begins = (tuple(row[:length]) for length in range(len(row), -1, -1))
            chosen.append(next((best[begin] for begin in begins if begin in best), 0))
        return told(batch, chosen)

    return {"majority": majority, "question only": question_only}
