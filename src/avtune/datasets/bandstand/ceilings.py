"""How far one perfect sense gets on bandstand's events: what a score must exceed to show that both are used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from avtune.datasets.bandstand.scene import SECONDS, Program, inside

_BACKGROUND = -1


@dataclass(frozen=True)
class Ceiling:
    """Shares of correct seconds of an observer who perceives one sense perfectly and the other not at all.

    Attributes:
        naming: Of one who names a class whenever it is perceived (the first of two), else the background.
        guessing: Of one who knows the whole clip's sequence and how such sequences usually end up.
    """

    naming: float
    guessing: float


def single_sense_ceiling(programs: Sequence[Program], sense: Literal["heard", "seen"]) -> Ceiling:
    """What one perfect sense achieves.

    The best guess given the whole sequence (classes named by their order of appearance, for they are
    interchangeable) and the second is counted on the first half of the programs and scored on the second, so
    that it is not flattered; sequences that the first half lacks are judged by the second's own content and
    the number of different contents in the clip.

    Args:
        programs: Programs of one difficulty; ten thousand give about one point's accuracy.
        sense: Which sense is perfect.
    """
    rows = [_perceived(program, sense) for program in programs]
    half = len(rows) // 2
    counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for sequence, labels in rows[:half]:
        for second, label in enumerate(labels):
            counts[sequence, second][label] += 1
            counts[sequence[second], len(set(sequence))][label] += 1
    naming = guessing = 0
    for sequence, labels in rows[half:]:
        for second, label in enumerate(labels):
            here = sequence[second]
            known = counts.get((sequence, second)) or counts.get((here, len(set(sequence))))
            guess = known.most_common(1)[0][0] if known else _BACKGROUND
            guessing += guess == label
            naming += (here[0] if here else _BACKGROUND) == label
    total = (len(rows) - half) * SECONDS
    return Ceiling(naming / total, guessing / total)


def _perceived(
    program: Program, sense: Literal["heard", "seen"]
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """Every second's content for one sense, and its label, classes numbered by their first appearance."""
    numbers: dict[str, int] = {}
    sequence = []
    for second in range(SECONDS):
        present = sorted(program.heard(second) if sense == "heard" else program.seen(second))
        for label in present:
            numbers.setdefault(label, len(numbers))
        sequence.append(tuple(sorted(numbers[label] for label in present)))
    labels = [
        numbers[program.label] if inside(second, program.event) else _BACKGROUND for second in range(SECONDS)
    ]
    return tuple(sequence), labels
