"""Rules that answer questions without a clip: by hand, and on the real lists."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from question_case import ANSWERS, VALID, batch_of, record, task_of

from avtune.config import DataConfig, HeadConfig, InputConfig
from avtune.datasets import Collection, read
from avtune.tasks import QuestionAnsweringTask, Scores, Truth, create_task
from avtune.transforms import Batch


def told(task: QuestionAnsweringTask, rule: Any, question: str) -> str:
    asked = task.question(record("", words=question))
    assert asked is not None
    batch = replace(batch_of(None, ["x"], VALID[:1]), question=asked.unsqueeze(0))
    return ANSWERS[int(rule(batch).argmax())]


def test_floors_are_learned_from_the_same_question_then_from_those_that_begin_alike() -> None:
    task = task_of()
    training = [
        ("Is there a drum", "no"), ("Is there a drum", "no"), ("Is there a drum", "yes"), ("Is there a sound", "yes"),
        ("Is there a sound", "yes"), ("Where is the drum", "two"), ("Is there a drum sound", "two"),
    ]  # fmt: skip
    truths = [
        Truth(task.target(record(answer)), task.question(record(answer, words=words)))
        for words, answer in training
    ]
    rules = task.blind_answers(truths)
    assert told(task, rules["question only"], "Is there a drum") == "no"
    assert told(task, rules["question only"], "Is there a drum sound") == "two"
    # Begins as "Is there a" does, to which "yes" is the most frequent answer.
    assert told(task, rules["question only"], "Is there a acoustic_guitar") == "yes"
    assert told(task, rules["question only"], "Where is the sound") == "two"
    # Of "yes" (3), "no" (2) and "two" (2).
    assert told(task, rules["majority"], "Where is the drum") == "yes"
    assert told(task, rules["question only"], "sound") == "yes"


def real(annotations_dir: Path, root: Path, **lists: str) -> Collection:
    """The real lists under other names: which splits they are taken for."""
    for name, listed in lists.items():
        path = annotations_dir / "music_avqa" / listed
        if not path.is_file():
            pytest.skip(f"{path} is absent")
        shutil.copy(path, root / f"avqa-{name}.json")
    return read(DataConfig(name="music_avqa", root=str(root), validation_share=0.0, test_share=0.0))


def floors(collection: Collection, split: str) -> dict[str, Scores]:
    """The rules of the training questions on a split, all its questions in one batch."""
    head = HeadConfig(task="question_answering")
    task = create_task(collection.labels, InputConfig(), head, collection.words)
    truths = {
        name: [Truth(task.target(one), task.question(one)) for one in collection.splits[name]]
        for name in ("train", split)
    }
    questions = torch.stack([truth.question for truth in truths[split] if truth.question is not None])
    target = torch.stack([truth.target for truth in truths[split]])
    names = [one.name for one in collection.splits[split]]
    here = torch.ones(len(names), dtype=torch.bool)
    batch = Batch(here, here, here, here, here[:, None], target, names, questions, names)
    rules = task.blind_answers(truths["train"])
    return {name: task.score(task.tally(rule(batch), batch)) for name, rule in rules.items()}


def test_the_floors_of_the_real_questions(annotations_dir: Path, tmp_path: Path) -> None:
    collection = real(annotations_dir, tmp_path, train="avqa-val.json")
    records = collection.splits["train"]
    assert len(records) == 4595
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in records:
        assert one.question is not None
        counts[one.question.text][one.question.answer] += 1
    scores = floors(collection, "train")
    expected = sum(max(found.values()) for found in counts.values()) / len(records)
    assert scores["question only"].value == pytest.approx(expected)
    most = sum(counts.values(), Counter()).most_common(1)[0][1]
    assert scores["majority"].value == pytest.approx(most / len(records))
    kinds = scores["majority"].details["per_class"]
    assert sum(row["questions"] for row in kinds if ":" in row["label"]) == 4595
    assert len(kinds) == 9 + 3


def test_questions_alone_answer_half_of_the_real_test_questions(
    annotations_dir: Path, tmp_path: Path
) -> None:
    collection = real(annotations_dir, tmp_path, train="avqa-val.json", test="avqa-test.json")
    scores = floors(collection, "test")
    # 51.8 % where questions that were never asked are not answered; ties may fall either way.
    assert scores["question only"].value == pytest.approx(0.518, abs=0.01)
    assert scores["question only"].details["questions"] == 9185
