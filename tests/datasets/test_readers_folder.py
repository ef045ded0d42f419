import os
from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, Event, read

FOREVER = float("inf")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def config(root: Path, **options) -> DataConfig:
    return DataConfig(name="folder", root=str(root), **options)


def test_a_folder_per_label(tmp_path):
    root = touch(
        tmp_path,
        *(f"horn/{number}.mp4" for number in range(10)),
        *(f"dog bark/deep/{number}.MOV" for number in range(10)),
        *(f"Background/{number}.webm" for number in range(4)),
        "horn/._1.mp4",
        ".cache/x/1.mp4",
        "readme.txt",
    )
    collection = read(config(root))
    assert collection.labels == ("dog bark", "horn")
    assert len(collection.records) == 24
    by_name = {record.name: record for record in collection.records}
    assert by_name["horn/3.mp4"].events == (Event("horn", 0.0, FOREVER),)
    assert by_name["dog bark/deep/3.MOV"].events == (Event("dog bark", 0.0, FOREVER),)
    assert by_name["Background/3.webm"].events == ()
    assert by_name["horn/3.mp4"].source == root / "horn" / "3.mp4"
    assert collection.warnings == ()
    assert read(config(root)) == collection


def test_files_that_are_no_videos_and_empty_folders_are_mentioned(tmp_path):
    root = touch(tmp_path, *(f"{label}/{n}.mp4" for label in ("a", "b") for n in range(8)), "a/notes.txt")
    (root / "c").mkdir()
    collection = read(config(root))
    assert collection.labels == ("a", "b")
    assert any("a: 1 files have no video suffix" in warning for warning in collection.warnings)
    assert any(warning.startswith("c: the folder holds no video") for warning in collection.warnings)


def test_split_folders_are_splits_not_labels(tmp_path):
    root = touch(tmp_path, *(f"train/{label}/{n}.mp4" for label in "ab" for n in range(10)), "test/a/0.mp4")
    collection = read(config(root))
    assert collection.labels == ("a", "b")
    assert [record.name for record in collection.splits["test"]] == ["test/a/0.mp4"]
    assert len(collection.splits["validation"]) == 3
    assert len(collection.splits["train"]) == 17
    touch(root, "val/b/1.mp4")
    names = [record.name for record in read(config(root)).splits["validation"]]
    assert names == ["val/b/1.mp4"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "put each clip into a folder"),
        (("1.mp4", "2.mp4"), "put each clip into a folder"),
        (("a/1.txt",), "put each clip into a folder"),
        (("a/1.mp4", "a/2.mp4"), "clips of 'a' alone"),
        (("background/1.mp4",), "clips of 'background' alone"),
    ],
)
def test_too_little_to_tell_labels_apart(tmp_path, names, message):
    with pytest.raises(DatasetError, match=message):
        read(config(touch(tmp_path, *names)))


def test_one_label_beside_background_is_a_task(tmp_path):
    root = touch(tmp_path, *(f"{label}/{n}.mp4" for label in ("a", "background") for n in range(5)))
    assert read(config(root)).labels == ("a",)


def test_labels_that_differ_in_capitals_are_mentioned(tmp_path):
    root = touch(tmp_path, *(f"{label}/{n}.mp4" for label in ("Dog", "cat", "dog") for n in range(9)))
    collection = read(config(root))
    assert collection.labels == ("Dog", "cat", "dog")
    assert collection.warnings[0].startswith("labels 'Dog' and 'dog' differ only in capitals")


def test_names_that_no_terminal_can_show_are_read(tmp_path):
    touch(tmp_path, *(f"{label}/{n}.mp4" for label in "ab" for n in range(5)))
    raw = os.fsencode(tmp_path / "a") + b"/\xff\n.mp4"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    record = next(record for record in read(config(tmp_path)).records if "?" in record.name)
    assert record.name == "a/??.mp4"
    assert record.source.is_file()


def test_the_root_has_to_be_a_folder(tmp_path):
    touch(tmp_path, "file")
    for root in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(DatasetError, match="is not a folder"):
            read(config(root))
