"""MUSIC-AVQA: 45,867 questions about 9,288 performances of a minute.

=========  ===========================================================================================
media      ``<video id>.mp4`` in ``video``, ``videos``, ``MUCIS-AVQA-videos-Real``, ``MUSIC-AVQA-videos-Synthetic`` or
           the root; or ``frames/<id>`` with ``audio/<id>.wav``; or ``video_frames/<id>`` with ``raw_audio/<id>.wav``
questions  ``avqa-train.json``, ``avqa-val.json``, ``avqa-test.json``, in the root, ``json``, ``data/json`` or
           ``json_update``; version 2.0: ``train_balance.json`` and ``test_balance.json``, or ``train_bias.json`` and
           ``test_bias.json``
=========  ===========================================================================================

Answers, which are the classes, and words are numbered by first appearance in the training questions, then in the other
lists. Where the training list is absent the order is that of the authors' vocabularies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avtune.config import DataConfig
from avtune.datasets.listed import clip_source, first_file
from avtune.datasets.question_text import answer_vocabulary, parse_question, video_of, word_vocabulary
from avtune.datasets.records import Collection, DatasetError, FrameFolder, Record
from avtune.datasets.splits import complete_or_score

FOLDERS = ("", "json", "data/json", "json_update", "data/json_update")
VERSIONS = {
    "official": {"train": "avqa-train.json", "validation": "avqa-val.json", "test": "avqa-test.json"},
    "balance": {"train": "train_balance.json", "test": "test_balance.json"},
    "bias": {"train": "train_bias.json", "test": "test_bias.json"},
}
"""Lists by ``data.split``; the last two are version 2.0's."""
PLACES = ("", "data/balance_full_set", "data/bias_set", "balance_full_set", "bias_set")
MEDIA = ("video", "videos", "MUCIS-AVQA-videos-Real", "MUSIC-AVQA-videos-Synthetic", ".")
UNPACKED = (("frames", "audio"), ("video_frames", "raw_audio"))
CLIP_SECONDS = 60.0
ANSWERS = (
    "two", "cello", "congas", "zero", "no", "pipa", "six", "yes", "one", "four", "three", "seven", "five",
    "ukulele", "right", "piano", "left", "accordion", "clarinet", "guzheng", "more than ten", "nine", "indoor",
    "saxophone", "drum", "violin", "middle", "outdoor", "bagpipe", "bassoon", "acoustic_guitar", "banjo",
    "electric_bass", "ten", "eight", "flute", "simultaneously", "trumpet", "erhu", "xylophone", "tuba", "suona",
)  # fmt: skip
"""The answers in the order of the authors' vocabulary."""
WORDS = (
    "<pad>", "How", "many", "instruments", "are", "sounding", "in", "the", "video", "What", "kind", "of",
    "instrument", "is", "leftest", "musical", "it", "did", "not", "sound", "from", "beginning", "to", "end", "Is",
    "on", "left", "louder", "than", "right", "guzheng", "types", "accordion", "always", "playing", "clarinet",
    "there", "a", "voiceover", "this", "cello", "violin", "flute", "pipa", "piano", "Which", "that", "sounds", "at",
    "same", "time", "as", "acoustic_guitar", "Where", "first", "electric_bass", "drum", "more", "rhythmic",
    "ukulele", "banjo", "saxophone", "trumpet", "erhu", "middle", "congas", "entire", "tuba", "bagpipe", "loudest",
    "comes", "xylophone", "bassoon", "suona", "second", "appeared", "performance", "rightest", "coming", "third",
    "last", "Are", "and", "makes", "before", "after", "lowest", "fourth", "longer", "fifth", "were", "heard",
    "throughout",
)  # fmt: skip
"""The words of the questions in the order of the authors' vocabulary."""


def read(config: DataConfig) -> Collection:
    """Read MUSIC-AVQA; no media file is opened.

    Args:
        config: ``root``; ``split``: ``official``, or ``balance`` or ``bias`` for version 2.0; ``validation_share`` and
            ``split_seed`` where there is no validation list.

    Returns:
        One record for each question, those of a video with the same source; labels are the answers.

    Raises:
        DatasetError: A list is absent or a question is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    if config.split not in VERSIONS:
        raise DatasetError(f"split {config.split!r} is unknown; use {', '.join(VERSIONS)}")
    source = clip_source(root, MEDIA, UNPACKED)
    given: dict[str, list[Record]] = {"train": []}
    for split, name in VERSIONS[config.split].items():
        places = FOLDERS if config.split == "official" else PLACES
        path = first_file([root / place for place in places], name)
        if path is not None:
            given[split] = [
                _record(row, f"{path.name} question {k + 1}", source) for k, row in enumerate(read_rows(path))
            ]
    if not any(given.values()):
        raise DatasetError(
            f"{root} holds none of {', '.join(VERSIONS[config.split].values())}; put the lists there or into json/"
        )
    # Train comes first, so that its numbers do not depend on the other lists.
    asked = [
        record.question for records in given.values() for record in records if record.question is not None
    ]
    labels, words = answer_vocabulary(asked).names, word_vocabulary(asked).names
    if not given["train"]:
        labels, words = tuple(dict.fromkeys((*ANSWERS, *labels))), tuple(dict.fromkeys((*WORDS, *words)))
    untrained = "there is no list of training questions, so this can only be scored"
    splits, warnings = complete_or_score(given, config, untrained)
    return Collection(config.name, root, labels, splits, warnings, clip_seconds=CLIP_SECONDS, words=words)


def _record(row: Any, where: str, source: Callable[[str, str], Path | FrameFolder]) -> Record:
    video, question = video_of(row, where), parse_question(row, where)
    name = f"{video}/{question.identity}" if question.identity >= 0 else video
    return Record(name, source(video, where), (), origin=where, question=question)


def read_rows(path: Path) -> list[Any]:
    """The questions of a list, not yet looked at.

    Args:
        path: A JSON file.

    Raises:
        DatasetError: It cannot be read, or holds no list.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a JSON file ({error}); restore the file") from None
    if not isinstance(rows, list):
        raise DatasetError(f"{path} must hold a JSON list of questions")
    return rows
