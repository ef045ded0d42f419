"""MUSIC-AVQA: questions of each list, numbers of answers and words, media in either layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, FrameFolder, read
from avtune.datasets.music_avqa import ANSWERS, WORDS


def row(video: str, number: int, content: str, values: list[str], answer: str) -> dict[str, Any]:
    return {
        "video_id": video, "question_id": number, "type": '["Audio", "Counting"]', "question_content": content,
        "templ_values": json.dumps(values), "question_deleted": 0, "anser": answer,
    }  # fmt: skip


TRAIN = [
    row("00000001", 1, "Is there a <Object> sound?", ["drum"], "yes"),
    row("00000001", 2, "How many instruments are sounding in the video?", [], "two"),
    row("00000002", 3, "Is there a <Object> sound?", ["cello"], "no"),
]
TEST = [row("00000003", 4, "Where is the <Object>?", ["drum"], "left")]


def avqa(root: Path, files: dict[str, Any], **changes: Any) -> DataConfig:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return DataConfig(name="music_avqa", root=str(root), **{"validation_share": 0.0, **changes})


def test_answers_and_words_are_numbered_by_the_training_questions_first(tmp_path: Path) -> None:
    config = avqa(tmp_path, {"json/avqa-train.json": TRAIN, "json/avqa-test.json": TEST})
    collection = read(config)
    assert collection.labels == ("yes", "two", "no", "left")
    assert collection.words[:6] == ("<pad>", "Is", "there", "a", "drum", "sound")
    assert collection.words[-2:] == ("Where", "is")
    first, second, _ = collection.splits["train"]
    assert (first.name, second.name) == ("00000001/1", "00000001/2")
    assert first.files == second.files
    assert first.question is not None
    assert first.question.text == "Is there a drum sound?"


def test_a_missing_answer_shifts_no_class(tmp_path: Path) -> None:
    rows = [TRAIN[0], {**TRAIN[1], "anser": None}, {**TRAIN[1], "anser": ""}, *TRAIN[1:]]
    collection = read(avqa(tmp_path, {"avqa-train.json": rows, "avqa-test.json": TEST}))
    assert collection.labels == ("yes", "two", "no", "left")
    assert [record.truths for record in collection.splits["train"]] == [("yes",), (), (), ("two",), ("no",)]


@pytest.mark.parametrize(("frames", "audio"), [("frames", "audio"), ("video_frames", "raw_audio")])
def test_media_are_found_unpacked_or_as_videos(tmp_path: Path, frames: str, audio: str) -> None:
    config = avqa(tmp_path, {"avqa-train.json": TRAIN, f"{frames}/x": "", f"{audio}/x": ""})
    source = read(config).splits["train"][0].source
    assert isinstance(source, FrameFolder)
    assert (source.frames, source.audio) == (
        tmp_path / frames / "00000001",
        tmp_path / audio / "00000001.wav",
    )
    avqa(tmp_path, {"MUCIS-AVQA-videos-Real/00000001.mp4": ""})
    assert read(config).splits["train"][0].source == tmp_path / "MUCIS-AVQA-videos-Real" / "00000001.mp4"


@pytest.mark.parametrize("version", ["balance", "bias"])
def test_version_two_is_read_from_its_own_lists(tmp_path: Path, version: str) -> None:
    folder = {"balance": "data/balance_full_set", "bias": "data/bias_set"}[version]
    rows = [{name: value for name, value in one.items() if name != "question_id"} for one in TRAIN]
    files = {f"{folder}/train_{version}.json": rows, f"{folder}/test_{version}.json": TEST}
    collection = read(avqa(tmp_path, files, split=version))
    assert [len(collection.splits[split]) for split in ("train", "test")] == [3, 1]
    assert collection.splits["train"][0].name == "00000001"


def test_the_real_list_and_the_authors_vocabularies(tmp_path: Path, annotations_dir: Path) -> None:
    folder = annotations_dir / "music_avqa"
    shutil.copy(folder / "avqa-val.json", tmp_path)
    collection = read(DataConfig(name="music_avqa", root=str(tmp_path)))
    assert len(collection.splits["validation"]) == 4595
    assert "can only be scored" in collection.warnings[0]
    assert (collection.labels, collection.words) == (ANSWERS, WORDS)
    listed = (folder / "ans_vocab.txt").read_text(encoding="utf-8").split("\n")
    assert tuple(filter(None, listed)) == ANSWERS
    words = (folder / "ques_vocab.txt").read_text(encoding="utf-8").split("\n")
    assert tuple(dict.fromkeys(filter(None, words))) == WORDS


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds none of avqa-train.json"),
        ({"avqa-train.json": "[{"}, "is not a JSON file"),
        ({"avqa-train.json": {}}, "must hold a JSON list of questions"),
        ({"avqa-train.json": [{"question_content": "Is it?"}]}, "question 1: there is no video_id"),
        ({"avqa-train.json": [{**TRAIN[0], "video_id": None}]}, "question 1: there is no video_id"),
        ({"avqa-train.json": [{**TRAIN[0], "video_id": 93}]}, "question 1: there is no video_id"),
        ({"avqa-train.json": ["Is it?"]}, "question 1: there is no video_id"),
        ({"avqa-train.json": [{**TRAIN[0], "video_id": "../x"}]}, "question 1: .* leads out of the root"),
        ({"avqa-train.json": [TRAIN[1], {**TRAIN[0], "templ_values": "[]"}]}, "question 2: .* has 1 slots"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(avqa(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="split 'clean' is unknown; use official, balance, bias"):
        read(avqa(tmp_path, {}, split="clean"))
