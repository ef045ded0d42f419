"""Questions as MUSIC-AVQA writes them: templates with slots, filled and cut into words, words and answers numbered.

Both vocabularies number what they hold by first appearance in the training questions, as the dataset's own code does,
so that class indices agree with published weights.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from avtune.datasets.records import DatasetError, Question

PAD = "<pad>"
LONGEST = 14
"""Words of the longest question of MUSIC-AVQA."""


@dataclass(frozen=True)
class Vocabulary:
    """Words, or answers, by number.

    Attributes:
        names: In the order of their numbers.
        what: What it holds, for messages.
    """

    names: tuple[str, ...]
    what: str = "word"

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def number(self, name: str, where: str = "") -> int:
        """The number of a name.

        Args:
            name: A word or an answer.
            where: What the error names, for example ``avqa-val.json question 7``.

        Raises:
            DatasetError: It is not in the vocabulary; the nearest one is given.
        """
        try:
            return self._numbers[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.names, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"there are {len(self)}, such as {self.names[-1]!r}"
            )
            place = f"{where}: " if where else ""
            raise DatasetError(f"{place}{self.what} {name!r} is not in the vocabulary; {hint}") from None

    def encode(self, words: Sequence[str], length: int = LONGEST, where: str = "") -> list[int]:
        """Words as numbers, filled up with the number of ``<pad>``.

        Args:
            words: At most ``length``.
            length: Numbers to give.
            where: See :meth:`number`.

        Raises:
            DatasetError: There are more words, or one is not in the vocabulary.
        """
        if len(words) > length:
            place = f"{where}: " if where else ""
            raise DatasetError(f"{place}the question has {len(words)} words; shorten it to {length} or fewer")
        padding = [PAD] * (length - len(words))
        return [self.number(word, where) for word in (*words, *padding)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def word_vocabulary(questions: Iterable[Question]) -> Vocabulary:
    """The words of the training questions by first appearance, ``<pad>`` before them."""
    words = dict.fromkeys(word for question in questions for word in question.words)
    return Vocabulary((PAD, *words))


def answer_vocabulary(questions: Iterable[Question]) -> Vocabulary:
    """The answers of the training questions by first appearance; that of a question without one is none of them."""
    return Vocabulary(
        tuple(dict.fromkeys(question.answer for question in questions if question.answer)), "answer"
    )


def video_of(row: Any, where: str) -> str:
    """The video that a question of MUSIC-AVQA's JSON lists is about.

    Args:
        row: The question.
        where: What errors name, for example ``avqa-val.json question 7``.

    Raises:
        DatasetError: It is no question, or names no video.
    """
    video = row.get("video_id") if isinstance(row, dict) else None
    if not isinstance(video, str):
        raise DatasetError(f"{where}: there is no video_id; give each question the name of its video")
    return video


def parse_question(row: Mapping[str, Any], where: str) -> Question:
    """Read one question of MUSIC-AVQA's JSON lists.

    ``type`` and ``templ_values`` are strings that hold JSON lists, and the answer's key is ``anser``; plain lists and
    ``answer`` are taken too. An answer or ``question_id`` that is null counts as absent.

    Args:
        row: The question.
        where: What errors name, for example ``avqa-val.json question 7``.

    Raises:
        DatasetError: Something is missing or of another kind, or does not fit the template.
    """
    template = row.get("question_content")
    if not isinstance(template, str) or not template.strip():
        raise DatasetError(f"{where}: there is no question_content; give each question its text")
    kind = _list(row.get("type", ["", ""]), "type", where)
    if len(kind) != 2:
        raise DatasetError(f"{where}: type {kind} must name what the question is about and what it asks")
    words = fill(template, _list(row.get("templ_values", []), "templ_values", where), where)
    answer = _answer(row.get("anser", row.get("answer")), where)
    return Question(
        words, answer, (kind[0], kind[1]), template.rstrip(), _identity(row.get("question_id"), where)
    )


def fill(template: str, values: Sequence[str], where: str) -> tuple[str, ...]:
    """Put values into a template's slots and cut it into words.

    Args:
        template: Words with single spaces between them; a word that holds ``<`` is a slot. Its last character, the
            question mark, is left out.
        values: One for each slot, in order.
        where: What errors name.

    Raises:
        DatasetError: There are more or fewer values than slots.
    """
    words = template.rstrip().split(" ")
    words[-1] = words[-1][:-1]
    slots = [place for place, word in enumerate(words) if "<" in word]
    if len(slots) != len(values):
        raise DatasetError(
            f"{where}: {template.strip()!r} has {len(slots)} slots and templ_values {len(values)} values; give one "
            "for each"
        )
    for place, value in zip(slots, values, strict=True):
        words[place] = value
    return tuple(words)


def _answer(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DatasetError(f"{where}: the answer is {value!r}; write a text or a number")
    return str(value)


def _identity(value: Any, where: str) -> int:
    if value is None:
        return -1
    if type(value) is not int or value < 0:
        raise DatasetError(
            f"{where}: question_id is {value!r}; write a whole number from 0 on, or leave it out"
        )
    return value


def _list(value: Any, field: str, where: str) -> list[str]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DatasetError(f'{where}: {field} is {value!r}; write a JSON list of texts, such as ["piano"]')
    return found
