"""AudioSet: both kinds of lists, both layouts of media, and the real files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, FrameFolder, read

LABELS = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/m/bark,"Bark"\n'
)
HEADER = "# Segments csv created\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
BALANCED = HEADER + "".join(f'-id{k}, 30.000, 40.000, "/m/09x0r,/m/bark"\n' for k in range(8)) + " , ,\n"
EVAL = HEADER + 'evalA, 0.000, 10.000, "/m/05zppz,"\n'


def audioset(root: Path, files: dict[str, Any], **changes: Any) -> DataConfig:
    for name, content in {"class_labels_indices.csv": LABELS, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return DataConfig(name="audioset", root=str(root), **changes)


def test_the_publishers_lists(tmp_path: Path) -> None:
    files = {"balanced_train_segments.csv": BALANCED, "data/eval_segments.csv": EVAL, "video/evalA.mp4": ""}
    collection = read(audioset(tmp_path, files))
    assert collection.labels == ("Speech", "Male speech, man speaking", "Bark")
    (test,) = collection.splits["test"]
    assert [event.label for event in test.events] == ["Male speech, man speaking"]
    assert test.source == tmp_path / "video" / "evalA.mp4"
    train = collection.splits["train"] + collection.splits["validation"]
    assert {record.name for record in train} == {f"-id{k}" for k in range(8)}
    assert all([event.label for event in record.events] == ["Speech", "Bark"] for record in train)


def test_all_of_it_holds_a_clip_once(tmp_path: Path) -> None:
    unbalanced = HEADER + '-id0, 1.000, 11.000, "/m/bark"\nother, 1.000, 11.000, "/m/bark"\n'
    files = {"balanced_train_segments.csv": BALANCED, "unbalanced_train_segments.csv": unbalanced}
    for split, clips in (("balanced", 8), ("full", 9)):
        collection = read(audioset(tmp_path, files, split=split, validation_share=0.0, test_share=0.0))
        assert len(collection.splits["train"]) == clips


def test_unpacked_clips_in_the_order_of_their_folders(tmp_path: Path) -> None:
    rows = {"data": [{"video_id": "ab_c", "wav": "/x/ab_c.flac", "video_path": "/y", "labels": "/m/bark"}]}
    files = {f"image_mulframe/frame_{k}/ab_c.jpg": "" for k in range(11)}
    config = audioset(tmp_path, {"eval.json": rows, "audio/ab_c.flac": "", **files})
    source = read(config).splits["test"][0].source
    assert isinstance(source, FrameFolder)
    assert [path.parent.name for path in source.pictures()] == [f"frame_{k}" for k in range(11)]
    assert source.audio == tmp_path / "audio" / "ab_c.flac"


def test_the_real_files(tmp_path: Path, annotations_dir: Path) -> None:
    folder = annotations_dir / "audioset"
    shutil.copy(folder / "class_labels_indices_as.csv", tmp_path)
    shutil.copy(folder / "sample_json_as.json", tmp_path / "eval.json")
    collection = read(DataConfig(name="audioset", root=str(tmp_path)))
    assert len(collection.labels) == 527
    assert collection.labels[:2] == ("Speech", "Male speech, man speaking")
    test = collection.splits["test"]
    rows = json.loads((folder / "sample_json_as.json").read_text(encoding="utf-8"))["data"]
    assert [record.name for record in test] == [row["video_id"] for row in rows]
    assert [len(record.events) for record in test] == [row["labels"].count(",") + 1 for row in rows]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no list such as balanced_train_segments.csv"),
        (
            {"eval_segments.csv": 'a, 0, 10, "/m/none"\n'},
            "eval_segments.csv line 1: label '/m/none' is in no line",
        ),
        ({"eval_segments.csv": 'a, 0, 10, ","\n'}, "eval_segments.csv line 1: there is no label"),
        ({"eval_segments.csv": "a, 0, 10\n"}, "eval_segments.csv line 1: expected 4 fields"),
        ({"eval.json": {"clips": []}}, "is not a list of clips"),
        (
            {"eval.json": {"data": [{"video_id": "../a", "labels": "/m/bark"}]}},
            "eval.json clip 1: .* leads out",
        ),
        ({"class_labels_indices.csv": "index,mid,display_name\n1,/m/a,A\n"}, "index '1' where 0 is due"),
        ({"class_labels_indices.csv": "0,/m/a,A\n1,/m/b,A\n"}, "names a class twice"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(audioset(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_without_class_names_there_is_no_order(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no class_labels_indices\.csv"):
        read(DataConfig(name="audioset", root=str(tmp_path)))
