"""Questions about a clip, in the manner and file format of MUSIC-AVQA, with balanced answers.

Each template proposes (values, answer) pairs for a clip. Within a split, every answer of a template is kept
equally often, and where the answer is yes or no also for every single object, so that reading the question
without hearing or seeing gains nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avtune.datasets.bandstand.scene import CLASSES, SECONDS, SPLITS, Program

Proposal = tuple[tuple[str, ...], str]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LOUDER_DB = 1.5


@dataclass(frozen=True)
class Template:
    """One form of question.

    Attributes:
        kind: Modality and type, as MUSIC-AVQA names them.
        text: The question; words in angle brackets are replaced by the values in order.
        propose: All (values, answer) pairs that a clip allows.
        by_value: Whether answers are balanced for each choice of values, not only over all.
    """

    kind: tuple[str, str]
    text: str
    propose: Callable[[Program], Iterator[Proposal]]
    by_value: bool = False


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def _heard(program: Program) -> dict[str, int]:
    """Seconds for which each class is heard."""
    return {sound.label: sound.heard[1] - sound.heard[0] for sound in program.sounds}


def _seen(program: Program) -> dict[str, int]:
    """Seconds for which each class is seen."""
    return {item.label: item.seen[1] - item.seen[0] for item in program.instruments}


def _single(program: Program) -> dict[str, str]:
    """Where each class is that only one instrument has: left or right."""
    labels = [item.label for item in program.instruments]
    return {
        item.label: "left" if item.look.x < 0.5 else "right"
        for item in program.instruments
        if labels.count(item.label) == 1
    }


def _sounds_heard(program: Program) -> Iterator[Proposal]:
    yield (), _NUMBERS[len(_heard(program))]


def _is_heard(program: Program) -> Iterator[Proposal]:
    for label in CLASSES:
        yield (label,), _yes(label in _heard(program))


def _is_louder(program: Program) -> Iterator[Proposal]:
    for one in program.sounds:
        for other in program.sounds:
            if abs(one.level_db - other.level_db) >= _LOUDER_DB:
                yield (one.label, other.label), _yes(one.level_db > other.level_db)


def _plays_longer(program: Program) -> Iterator[Proposal]:
    heard = _heard(program)
    for one in heard:
        for other in heard:
            if heard[one] != heard[other]:
                yield (one, other), _yes(heard[one] > heard[other])


def _instruments_seen(program: Program) -> Iterator[Proposal]:
    yield (), _NUMBERS[len(program.instruments)]


def _is_seen(program: Program) -> Iterator[Proposal]:
    for label in CLASSES:
        yield (label,), _yes(label in _seen(program))


def _where_is(program: Program) -> Iterator[Proposal]:
    for label, side in _single(program).items():
        yield (label,), side


def _beside(program: Program) -> Iterator[Proposal]:
    for one in program.instruments:
        for other in program.instruments:
            together = max(one.seen[0], other.seen[0]) < min(one.seen[1], other.seen[1])
            sides = (one.look.x < 0.5, other.look.x < 0.5)
            if together and sides[0] != sides[1] and one.label != other.label:
                yield ("left" if sides[0] else "right", other.label), one.label


def _from_the_stage(program: Program) -> Iterator[Proposal]:
    for sound in program.sounds:
        yield (sound.label,), _yes(any(sound.number == s.number for s in _visible_sounds(program)))


def _visible_sounds(program: Program) -> list[Any]:
    """Sounds whose instrument is seen while they last."""
    return [
        sound
        for sound in program.sounds
        if any(sound.instrument in program.sounding(second) for second in range(SECONDS))
    ]


def _always_plays(program: Program) -> Iterator[Proposal]:
    for label in _seen(program):
        seconds = [second for second in range(SECONDS) if label in program.seen(second)]
        yield (label,), _yes(all(label in program.heard(second) for second in seconds))


def _silent_instruments(program: Program) -> Iterator[Proposal]:
    sounding = {number for second in range(SECONDS) for number in program.sounding(second)}
    yield (), _NUMBERS[len(program.instruments) - len(sounding)]


def _where_sounding(program: Program) -> Iterator[Proposal]:
    sounding = {number for second in range(SECONDS) for number in program.sounding(second)}
    if len(sounding) == 1:
        yield (), "left" if program.instruments[sounding.pop()].look.x < 0.5 else "right"


def _seen_longer(program: Program) -> Iterator[Proposal]:
    heard, seen = _heard(program), _seen(program)
    for label in sorted(heard.keys() & seen.keys()):
        if heard[label] != seen[label]:
            yield (label,), _yes(seen[label] > heard[label])


def _first_sound(program: Program) -> Iterator[Proposal]:
    starts = sorted((sound.heard[0], sound.label) for sound in program.sounds)
    if len(starts) > 1 and starts[0][0] < starts[1][0]:
        yield (), starts[0][1]


def _sound_or_sight(program: Program) -> Iterator[Proposal]:
    for sound in program.sounds:
        if sound.instrument is not None:
            seen = program.instruments[sound.instrument].seen
            if seen[0] != sound.heard[0]:
                yield (sound.label,), "sound" if sound.heard[0] < seen[0] else "sight"


TEMPLATES: tuple[Template, ...] = (
    Template(("Audio", "Counting"), "How many sounds were heard throughout the video?", _sounds_heard),
    Template(("Audio", "Counting"), "Is there a <Object> sound?", _is_heard, by_value=True),
    Template(("Audio", "Comparative"), "Is the <Object> louder than the <Object>?", _is_louder),
    Template(("Audio", "Comparative"), "Is the <Object> playing longer than the <Object>?", _plays_longer),
    Template(("Visual", "Counting"), "How many instruments appeared in the entire video?", _instruments_seen),
    Template(("Visual", "Counting"), "Is there a <Object> in the entire video?", _is_seen, by_value=True),
    Template(("Visual", "Location"), "Where is the <Object>?", _where_is, by_value=True),
    Template(("Visual", "Location"), "What is the instrument on the <LR> of <Object>?", _beside),
    Template(
        ("Audio-Visual", "Existential"),
        "Is the sound of the <Object> from an instrument in the video?",
        _from_the_stage,
        by_value=True,
    ),
    Template(
        ("Audio-Visual", "Existential"),
        "Is the <Object> in the video always playing?",
        _always_plays,
        by_value=True,
    ),
    Template(
        ("Audio-Visual", "Counting"), "How many instruments in the video never sound?", _silent_instruments
    ),
    Template(("Audio-Visual", "Location"), "Where is the sounding instrument?", _where_sounding),
    Template(
        ("Audio-Visual", "Comparative"),
        "Is the <Object> seen longer than it is heard?",
        _seen_longer,
        by_value=True,
    ),
    Template(("Audio-Visual", "Temporal"), "What is the first sound that comes in?", _first_sound),
    Template(
        ("Audio-Visual", "Temporal"),
        "Which comes first, the sound or the sight of the <Object>?",
        _sound_or_sight,
        by_value=True,
    ),
)


def questions(programs: Sequence[Program], seed: int) -> list[dict[str, Any]]:
    """Questions with balanced answers about a set.

    Args:
        programs: All clips of the set.
        seed: Which of the questions that would unbalance the answers are left out.

    Returns:
        Rows as in MUSIC-AVQA's files (``type`` and ``templ_values`` are JSON in a string; the answer's key is
        ``anser``), and ``split``.
    """
    rows: list[dict[str, Any]] = []
    for place, split in enumerate(SPLITS):
        members = [program for program in programs if program.split == split]
        for number, template in enumerate(TEMPLATES):
            rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(place, number, 5)))
            for program, values, answer in _balanced(template, members, rng):
                rows.append(
                    {
                        "video_id": program.name,
                        "question_id": len(rows),
                        "type": json.dumps(list(template.kind)),
                        "question_content": template.text,
                        "templ_values": json.dumps(list(values)),
                        "question_deleted": 0,
                        "anser": answer,
                        "split": split,
                    }
                )
    return rows


def _balanced(
    template: Template, programs: Sequence[Program], rng: np.random.Generator
) -> list[tuple[Program, tuple[str, ...], str]]:
    """Proposals of a template, as many of each answer as there are of the rarest that is not exceptional."""
    groups: dict[tuple[str, ...], dict[str, list[tuple[Program, tuple[str, ...]]]]]
    groups = defaultdict(lambda: defaultdict(list))
    for program in programs:
        for values, answer in template.propose(program):
            groups[values if template.by_value else ()][answer].append((program, values))
    kept = []
    for key in sorted(groups):
        answers = groups[key]
        # An answer that hardly occurs (four instruments) would otherwise cost nearly all questions.
        largest = max(len(found) for found in answers.values())
        common = sorted(answer for answer, found in answers.items() if len(found) >= 0.1 * largest)
        if len(common) < 2:
            continue
        quota = min(len(answers[answer]) for answer in common)
        for answer in common:
            for choice in rng.permutation(len(answers[answer]))[:quota]:
                program, values = answers[answer][int(choice)]
                kept.append((program, values, answer))
    return sorted(kept, key=lambda row: (row[0].index, row[1]))
