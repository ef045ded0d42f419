"""Questions about one's own videos: numbering, splits, where videos are found, what is wrong in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, read
from avtune.datasets.sections import cut


def row(video: str, content: str, answer: str, split: str | None = "train", **more: Any) -> dict[str, Any]:
    asked = {"video_id": video, "question_content": content, "answer": answer, **more}
    return asked if split is None else {**asked, "split": split}


ROWS = [
    row("one", "Is there a <Object> sound?", "yes", type=["Audio", "Counting"], templ_values=["drum"]),
    row("two", "Is there a <Object> sound?", "no", templ_values='["bell"]', type='["Audio", "Counting"]'),
    row("two", "How many drums are seen?", "two", question_id=7),
    row("three", "Is there a drum sound?", "no", "val"),
    row("four", "Is there a horn sound?", "seven", "test"),
]


def written(root: Path, rows: Any, videos: tuple[str, ...] = (), **changes: Any) -> DataConfig:
    root.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else json.dumps(rows)
    (root / "questions.json").write_text(text, encoding="utf-8")
    for video in videos:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    return DataConfig(name="questions", root=str(root), **changes)


def test_answers_are_those_of_the_training_questions_and_words_of_all(tmp_path: Path) -> None:
    collection = read(written(tmp_path, ROWS))
    assert [len(collection.splits[split]) for split in ("train", "validation", "test")] == [3, 1, 1]
    assert collection.labels == ("yes", "no", "two")
    assert collection.words[:7] == ("<pad>", "Is", "there", "a", "drum", "sound", "bell")
    assert collection.words[-1] == "horn"
    first, _, third = collection.splits["train"]
    assert first.question is not None
    assert (first.question.kind, first.question.text) == (("Audio", "Counting"), "Is there a drum sound?")
    assert (first.name, third.name, third.question.kind) == ("one/1", "two/7", ("", ""))
    unknown, new = collection.warnings
    assert "1 validation and test questions have answers that no training question has (seven)" in unknown
    assert "no training question has (horn)" in new


def test_videos_are_found_anywhere_below_the_root_by_name_or_by_path(tmp_path: Path) -> None:
    rows = [
        row("one", "Is it?", "yes"), row("deep/two.mov", "Is it?", "no"), row("absent", "Is it?", "no"),
        row("four.part", "Is it?", "no"),
    ]  # fmt: skip
    videos = ("AVE/one.mp4", "deep/two.mov", ".hidden/absent.mp4", "notes/one.txt", "four.part.mkv")
    found = [
        record.source
        for record in read(written(tmp_path, rows, videos, validation_share=0.0, test_share=0.0)).records
    ]
    expected = ("AVE/one.mp4", "deep/two.mov", "absent.mp4", "four.part.mkv")
    assert found == [tmp_path / name for name in expected]


def test_splits_that_no_question_names_are_held_out_by_video(tmp_path: Path) -> None:
    rows = [row(f"clip{k}", f"Is it number {n}?", "yes", None) for k in range(20) for n in range(3)]
    collection = read(written(tmp_path, rows))
    sizes = {split: len(records) for split, records in collection.splits.items()}
    assert sizes["validation"] > 0
    assert sizes["test"] == 9
    assert sum(sizes.values()) == 60
    videos = {split: {record.source for record in records} for split, records in collection.splits.items()}
    assert not videos["train"] & (videos["validation"] | videos["test"])


def test_a_question_is_about_all_of_its_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = read(written(tmp_path, ROWS))
    lasting = {"one": 10.4, "two": 25.0, "three": 10.0, "four": 60.0}
    monkeypatch.setattr("avtune.datasets.sections._duration", lambda path: lasting[path.stem])
    whole = cut(collection, 10, 1.0)
    assert whole.splits == collection.splits
    assert (
        "3 of 5 questions are about clips longer than the 10 s that the model sees, up to 60.0 s"
        in whole.warnings[-1]
    )
    assert cut(collection, 10, 6.0).warnings == collection.warnings


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[{", "is not a JSON file"),
        ([], "holds no question to train on"),
        ([row("x", "Is it?", "yes", "test")], "holds no question to train on"),
        ([{"question_content": "Is it?"}], "question 1: there is no video_id"),
        ([{**row("x", "Is it?", "yes"), "video_id": None}], "question 1: there is no video_id"),
        ([row("x", "Is it?", "yes", "dev")], "question 1: split is 'dev'; use train, val or test"),
        ([row("x", "Is it", "yes")], "question 1: 'Is it' ends with no question mark"),
        ([row("x", "Is  it?", "yes")], "no word between two spaces"),
        ([row("x", "Is it?", "")], "question 1: there is no answer"),
        ([{**row("x", "Is it?", ""), "answer": None}], "question 1: there is no answer"),
        (
            [row("x", "Is " + "very " * 14 + "it?", "yes")],
            "question 1: the question has 16 words; shorten it to 14",
        ),
        ([row("x", "Is <Object>?", "yes")], "has 1 slots and templ_values 0 values"),
        ([row("../x", "Is it?", "yes")], "leads out of the root"),
        ([row("/x.mp4", "Is it?", "yes")], "leads out of the root"),
        ([row("twin", "Is it?", "yes")], "2 videos are called 'twin', a/twin.mp4 and b/twin.mp4"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(written(tmp_path, rows, ("a/twin.mp4", "b/twin.mp4")))
    assert "\n" not in str(caught.value)


def test_a_root_without_questions_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no questions\.json"):
        read(DataConfig(name="questions", root=str(tmp_path)))
