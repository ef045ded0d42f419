"""MSR-VTT: both splits, categories, what is wrong with a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, Event, read
from avtune.datasets.msrvtt import CATEGORIES

VIDEOS = [
    {
        "video_id": f"video{k}",
        "category": k % 20,
        "split": split,
        "url": "",
        "start time": 1.5,
        "end time": 14.0,
    }
    for k, split in enumerate(["train"] * 6 + ["validate"] * 2 + ["test"] * 4)
]


def msrvtt(
    root: Path, split: str = "official", videos: Any = VIDEOS, encoding: str = "utf-8", **files: str
) -> DataConfig:
    content = {"info": {}, "videos": videos, "sentences": [{"video_id": "video0", "caption": "a band"}]}
    (root / "MSRVTT_data.json").write_text(json.dumps(content), encoding=encoding)
    (root / "msrvtt_data").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / "msrvtt_data" / f"MSRVTT_{name.replace('_9k', '.9k')}.csv").write_text(text, encoding="utf-8")
    return DataConfig(name="msrvtt", root=str(root), split=split)


ONE_K_A = {
    "train_9k": "video_id\n" + "".join(f"video{k}\n" for k in range(9)),
    "JSFUSION_test": 'key,vid_key,video_id,sentence\nret0,msr10,video10,"a man, singing"\nret1,msr9,video9,a dog\n',
}


def test_the_official_splits(tmp_path: Path) -> None:
    (tmp_path / "videos" / "all").mkdir(parents=True)
    (tmp_path / "videos" / "all" / "video3.mp4").touch()
    collection = read(msrvtt(tmp_path))
    assert {split: len(records) for split, records in collection.splits.items()} == {
        "train": 6, "validation": 2, "test": 4
    }  # fmt: skip
    third = collection.splits["train"][3]
    assert third.source == tmp_path / "videos" / "all" / "video3.mp4"
    assert third.events == (Event("sports/actions"),)
    assert collection.labels == CATEGORIES
    assert len(CATEGORIES) == 20
    # Clips are of differing lengths, so that a file is one query however many inputs it gives.
    assert collection.clip_seconds is None
    assert "no sound track" in collection.warnings[0]


def test_the_1k_a_split_is_that_of_its_tables_and_holds_validation_out(tmp_path: Path) -> None:
    blank = {name: f"{text} \n" for name, text in ONE_K_A.items()}
    collection = read(msrvtt(tmp_path, "1k-A", encoding="utf-8-sig", **blank))
    assert [record.name for record in collection.splits["test"]] == ["video10", "video9"]
    trained = {record.name for split in ("train", "validation") for record in collection.splits[split]}
    assert trained == {f"video{k}" for k in range(9)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "1ka"}, "no split '1ka'; set data.split to official or 1k-A"),
        ({"split": "1k-A"}, "no MSRVTT_train.9k.csv, which data.split 1k-A needs"),
        (
            {"split": "1k-A", **ONE_K_A, "train_9k": "video_id\nvideo99\n"},
            "'video99' is not in MSRVTT_data.json",
        ),
        (
            {"split": "1k-A", **ONE_K_A, "train_9k": "video\nvideo1\n"},
            r"MSRVTT_train\.9k\.csv line 1: column 'video_id' is absent",
        ),
        ({"videos": [{"video_id": "a", "category": 20, "split": "train"}]}, "a number from 0 to 19"),
        (
            {"videos": [{"video_id": "a", "category": 0, "split": "dev"}]},
            "holds no list 'videos' with video_id",
        ),
        ({"videos": None}, "holds no list 'videos'"),
        ({"videos": [{"video_id": "../a", "category": 0, "split": "train"}]}, "leads out of the root"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(msrvtt(tmp_path, **change))
    assert "\n" not in str(caught.value)


def test_no_list_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no MSRVTT_data\.json; put it there"):
        read(DataConfig(name="msrvtt", root=str(tmp_path)))
