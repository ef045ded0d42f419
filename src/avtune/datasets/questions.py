"""Questions about one's own videos, in one file; bandstand's are written so too.

``<root>/questions.json`` is a list in the form of MUSIC-AVQA's::

    [{"video_id": "concert", "type": ["Audio", "Counting"], "question_content": "How many flutes are heard?",
      "answer": "two", "split": "train"}]

``type`` and ``split`` may be left out, and so may ``templ_values`` (values of slots such as ``<Object>``) and
``question_id``. ``video_id`` is the name of a video anywhere below the root, without its suffix, or its path below the
root.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avtune.config import DataConfig
from avtune.datasets.music_avqa import read_rows
from avtune.datasets.question_text import (
    LONGEST,
    answer_vocabulary,
    parse_question,
    video_of,
    word_vocabulary,
)
from avtune.datasets.records import (
    SPLITS,
    VIDEO_SUFFIXES,
    Collection,
    DatasetError,
    Question,
    Record,
    file_name,
    relative_path,
)
from avtune.datasets.splits import complete

QUESTIONS = "questions.json"
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
MARKS = ("?", "\N{FULLWIDTH QUESTION MARK}")
SHOWN = 5


def read(config: DataConfig) -> Collection:
    """Read questions about one's own videos; no media file is opened.

    Answers, which are the classes, and words are numbered by first appearance in the training questions; words of
    other questions come behind. An answer that no training question has cannot be given and counts as wrong.

    Args:
        config: ``root``; ``validation_share``, ``test_share`` and ``split_seed`` for the splits that no question names;
            a video's questions stay together.

    Returns:
        One record for each question, those of a video with the same source.

    Raises:
        DatasetError: The file is absent, or a question is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    path = root / QUESTIONS
    if not path.is_file():
        raise DatasetError(
            f"{root} holds no {QUESTIONS}; write your questions there or point the root at them"
        )
    media = Videos(root)
    given: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{QUESTIONS} question {number}"
        video = video_of(row, where)
        split = row.get("split", "train")
        if split not in SPLIT_NAMES:
            raise DatasetError(f"{where}: split is {split!r}; use train, val or test, or leave it out")
        given[SPLIT_NAMES[split]].append(_record(row, video, where, number, media))
    if not given["train"]:
        raise DatasetError(f"{path} holds no question to train on; leave the split of some out")
    splits, warnings = complete(given, config)
    trained, others = _asked(splits["train"]), _asked((*splits["validation"], *splits["test"]))
    answers, words = answer_vocabulary(trained).names, word_vocabulary(trained).names
    warnings += _unseen(answers, words, others)
    every_word = word_vocabulary([*trained, *others]).names
    return Collection(config.name, root, answers, splits, warnings, words=every_word)


class Videos:
    """Finds videos anywhere below a folder by their names without suffix, or by their paths below it.

    Args:
        root: The folder; it is walked once, hidden folders left out.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, list[str]] = defaultdict(list)
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in VIDEO_SUFFIXES:
                    self._files[stem].append(os.path.relpath(os.path.join(folder, name), root))

    def file(self, name: str, where: str) -> Path:
        """A video's file; where there is none, the path at which it would be looked for.

        Args:
            name: What an annotation calls it.
            where: What the error names.

        Raises:
            DatasetError: The name leads out of the root, or several videos have it.
        """
        if "/" in name or os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
            return self._root / relative_path(name, where)
        found = self._files.get(file_name(name, where), [f"{name}.mp4"])
        if len(found) > 1:
            raise DatasetError(
                f"{where}: {len(found)} videos are called {name!r}, {found[0]} and {found[1]}; write the path of the "
                "one that is meant, below the root and with its suffix"
            )
        return self._root / found[0]


def _record(row: dict[str, Any], video: str, where: str, number: int, media: Videos) -> Record:
    question = parse_question(row, where)
    if not question.template.endswith(MARKS):
        raise DatasetError(f"{where}: {question.template!r} ends with no question mark; end it with one")
    if "" in question.words:
        raise DatasetError(
            f"{where}: {question.template!r} has no word between two spaces; write single spaces"
        )
    if len(question.words) > LONGEST:
        raise DatasetError(
            f"{where}: the question has {len(question.words)} words; shorten it to {LONGEST} or fewer"
        )
    if not question.answer:
        raise DatasetError(f"{where}: there is no answer; give each question one")
    identity = question.identity if question.identity >= 0 else number
    return Record(f"{video}/{identity}", media.file(video, where), (), origin=where, question=question)


def _asked(records: Sequence[Record]) -> list[Question]:
    return [record.question for record in records if record.question is not None]


def _unseen(answers: Sequence[str], words: Sequence[str], others: Sequence[Question]) -> tuple[str, ...]:
    """What a user should know of questions outside the training split that hold something new."""
    warnings = []
    unknown = [question.answer for question in others if question.answer not in set(answers)]
    if unknown:
        warnings.append(
            f"{len(unknown)} validation and test questions have answers that no training question has "
            f"({_some(unknown)}): they count as wrong; add training questions with these answers"
        )
    known = set(words)
    new = [word for question in others for word in question.words if word not in known]
    if new:
        warnings.append(
            f"validation and test questions hold words that no training question has ({_some(new)}), of which nothing "
            "is learned; add training questions with these words"
        )
    return tuple(warnings)


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:SHOWN]) + (" and others" if len(distinct) > SHOWN else "")
