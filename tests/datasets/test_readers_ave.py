import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, FrameFolder, existing, read, segment_labels
from avtune.datasets.ave import read_rows

HEADER = "Category&VideoID&Quality&StartTime&EndTime"
ROWS = [
    "Church bell&aaa&good&0&10",
    "Male speech, man speaking&bbb&good&2&5",
    "Church bell&ccc&good&0&0",
    "Bark&-dd_&good&9&10",
    "Bark&aaa&good&3&4",
    "Accordion&eee&good&0&7",
]


def write_tree(root: Path, rows=ROWS, header=True, splits=None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "Annotations.txt").write_text("\n".join([HEADER] * header + list(rows)) + "\n")
    if splits is None:
        splits = {"train": [0, 1, 2], "val": [3], "test": [4, 5]}
    for name, indices in splits.items():
        (root / f"{name}Set.txt").write_text("".join(f"{rows[index]}\n" for index in indices))
    return root


def config(root: Path, **options) -> DataConfig:
    return DataConfig(name="ave", root=str(root), **options)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rows_with_and_without_header(tmp_path, header, line_end, mark):
    path = tmp_path / "Annotations.txt"
    path.write_bytes((mark + line_end.join([HEADER] * header + ROWS + ["", ""])).encode())
    rows = read_rows(path)
    assert [row.video for row in rows] == ["aaa", "bbb", "ccc", "-dd_", "aaa", "eee"]
    assert rows[1].category == "Male speech, man speaking"
    assert (rows[1].start, rows[1].end) == (2, 5)
    assert rows[0].origin == f"Annotations.txt line {1 + header}"


def test_bandstand_reads_the_same_tree_as_ave(tmp_path):
    root = write_tree(tmp_path)
    one, other = read(config(root)), read(DataConfig(name="bandstand", root=str(root)))
    assert one.splits == other.splits
    assert one.labels == ("Church bell", "Male speech, man speaking", "Bark", "Accordion")
    assert one.splits["train"][2].events == ()
    assert one.splits["train"][0].source == root / "AVE" / "aaa.mp4"
    assert [len(one.splits[name]) for name in ("train", "validation", "test")] == [3, 1, 2]


def test_order_files_give_the_same_splits_as_row_files(tmp_path):
    rows = read(config(write_tree(tmp_path / "rows")))
    root = tmp_path / "orders"
    (root / "data").mkdir(parents=True)
    (root / "data" / "Annotations.txt").write_text("\n".join(ROWS))
    for name, indices in {"train": [0, 1, 2], "val": [3], "test": [4, 5]}.items():
        with h5py.File(root / "data" / f"{name}_order.h5", "w") as file:
            file["order"] = np.array(indices)
    orders = read(config(root))
    for name in ("train", "validation", "test"):
        assert [(record.name, record.events) for record in orders.splits[name]] == [
            (record.name, record.events) for record in rows.splits[name]
        ]


def test_media_layouts(tmp_path):
    lavish = write_tree(tmp_path / "lavish")
    (lavish / "AVE_Dataset" / "video_frames").mkdir(parents=True)
    (lavish / "AVE_Dataset" / "raw_audio").mkdir()
    assert read(config(lavish)).splits["train"][0].source == FrameFolder(
        lavish / "AVE_Dataset" / "video_frames" / "aaa", lavish / "AVE_Dataset" / "raw_audio" / "aaa.wav"
    )
    arrays = write_tree(tmp_path / "arrays")
    for name in ("frames", "wave"):
        (arrays / name).mkdir()
    (arrays / "wave" / "aaa.npy").touch()
    assert read(config(arrays)).splits["train"][0].source == FrameFolder(
        arrays / "frames" / "aaa", arrays / "wave" / "aaa.npy"
    )
    (arrays / "wave" / "aaa.wav").touch()
    assert read(config(arrays)).splits["train"][0].files[1].suffix == ".wav"
    unpacked = tmp_path / "unpacked"
    write_tree(unpacked / "AVE_Dataset")
    (unpacked / "AVE_Dataset" / "AVE").mkdir()
    assert read(config(unpacked)).splits["test"][0].source == unpacked / "AVE_Dataset" / "AVE" / "aaa.mp4"


def test_pictures_are_ordered_by_number(tmp_path):
    for name in ("2.jpg", "10.jpg", "1.jpg", "cover.jpg", "3.png"):
        (tmp_path / name).touch()
    folder = FrameFolder(tmp_path, tmp_path / "x.wav")
    assert [path.name for path in folder.pictures()] == ["1.jpg", "2.jpg", "10.jpg", "cover.jpg"]


def test_official_split_warns_of_leaks_and_clean_split_drops_them(tmp_path):
    rows = [
        "a&inall&good&0&1",
        "a&inall&good&1&2",
        "b&inall&good&2&3",
        "b&trainval&good&0&1",
        "b&trainval&good&0&2",
        "a&free&good&0&1",
        "a&free&good&0&1",
        "a&other&good&0&9",
    ]
    splits = {"train": [0, 3, 5, 6], "val": [1, 4, 7], "test": [2]}
    root = write_tree(tmp_path, rows, splits=splits)
    official = read(config(root))
    assert [len(official.splits[name]) for name in ("train", "validation", "test")] == [4, 3, 1]
    assert len(official.warnings) == 1
    assert official.warnings[0].startswith(
        "2 video ids straddle the official split "
        "(1 in train and test, 2 in train and validation, 1 in validation and test)"
    )
    clean = read(config(root, split="clean"))
    names = {split: [record.name for record in records] for split, records in clean.splits.items()}
    assert names == {"train": ["free", "free"], "validation": ["trainval", "other"], "test": ["inall"]}
    assert clean.labels == official.labels
    assert any("2 of 4 train rows dropped" in warning for warning in clean.warnings)
    assert any("1 of 3 validation rows dropped" in warning for warning in clean.warnings)


def test_class_indices_do_not_shift_with_an_incomplete_download(tmp_path):
    root = write_tree(tmp_path)
    (root / "AVE").mkdir()
    for name in ("bbb", "eee"):
        (root / "AVE" / f"{name}.mp4").touch()
    collection = read(config(root))
    present = existing(collection)
    assert present.labels == collection.labels
    names = {split: [record.name for record in records] for split, records in present.splits.items()}
    assert names == {"train": ["bbb"], "validation": [], "test": ["eee"]}
    assert len(present.missing) == 4
    assert any("aaa" in line and "trainSet.txt line 1" in line for line in present.missing)


@pytest.mark.parametrize(
    "name",
    ["../aaa", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "c:x", "a\x00b", "..\\..\\x", "./a", "a/"],
)
def test_ids_that_leave_the_root_are_refused(tmp_path, name):
    root = write_tree(tmp_path, ["Bark&good_id&good&0&1", f"Bark&{name}&good&0&1"], splits={})
    for file in ("trainSet.txt", "valSet.txt", "testSet.txt"):
        (root / file).write_text("Bark&good_id&good&0&1\n")
    with pytest.raises(DatasetError, match=r"Annotations.txt line 3"):
        read(config(root))
    write_tree(tmp_path, ["Bark&good_id&good&0&1"], splits={})
    (root / "testSet.txt").write_text(f"Bark&{name}&good&0&1\n")
    with pytest.raises(DatasetError, match=r"testSet.txt line 1"):
        read(config(root))


@pytest.mark.parametrize(
    "row",
    [
        "Bark&id&good&0",
        "Bark&id&good&0&1&2",
        "&id&good&0&1",
        "Bark&id&good&x&1",
        "Bark&id&good&5&4",
        "Bark&id&good&-1&4",
        "Bark&id&good&0&nan",
        "Bark&id&good&0&inf",
        "no separator",
    ],
)
def test_malformed_rows_are_named(tmp_path, row):
    root = write_tree(tmp_path, [ROWS[0], row], splits={"train": [0], "val": [0], "test": [0]})
    with pytest.raises(DatasetError, match=r"^Annotations.txt line 3: [^\n]+$"):
        read(config(root))


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(DatasetError, match="not a folder"):
        read(config(tmp_path / "none"))
    with pytest.raises(DatasetError, match=r"holds no Annotations\.txt"):
        read(config(tmp_path))
    (tmp_path / "Annotations.txt").write_text("")
    with pytest.raises(DatasetError, match="holds no rows"):
        read(config(tmp_path))
    (tmp_path / "Annotations.txt").write_bytes(b"\xff\xfe\x00B\x00a")
    with pytest.raises(DatasetError, match="UTF-8"):
        read(config(tmp_path))
    write_tree(tmp_path)
    (tmp_path / "valSet.txt").unlink()
    with pytest.raises(DatasetError, match=r"trainSet\.txt.*train_order\.h5"):
        read(config(tmp_path))
    write_tree(tmp_path)
    (tmp_path / "valSet.txt").write_text("Meow&id&good&0&1\n")
    with pytest.raises(DatasetError, match=r"valSet.txt line 1: category 'Meow'"):
        read(config(tmp_path))
    with pytest.raises(DatasetError, match="official or clean"):
        read(config(tmp_path, split="fair"))
    with pytest.raises(DatasetError, match="did you mean ave"):
        read(DataConfig(name="avee", root=str(tmp_path)))


def test_a_small_set_may_have_empty_splits_but_not_an_empty_train(tmp_path):
    root = write_tree(tmp_path, splits={"train": [0, 1], "val": [], "test": []})
    collection = read(config(root))
    assert [len(records) for records in collection.splits.values()] == [2, 0, 0]
    assert collection.warnings == ("the validation split is empty", "the test split is empty")
    (root / "trainSet.txt").write_text("\n")
    with pytest.raises(DatasetError, match="empty training split"):
        read(config(root))


def order_tree(root: Path) -> Path:
    (root / "Annotations.txt").write_text("\n".join(ROWS))
    for name in ("train", "val", "test"):
        with h5py.File(root / f"{name}_order.h5", "w") as file:
            file["order"] = np.array([0, 1])
    return root


@pytest.mark.parametrize(
    "values", [[0, 6], [-1, 2], [0.5, 1.0], [[0, 1], [2, 3]], [1, 1], list(range(20)), 3, "text"]
)
def test_orders_that_are_no_row_numbers_are_refused(tmp_path, values):
    root = order_tree(tmp_path)
    with h5py.File(root / "val_order.h5", "w") as file:
        file["order"] = values
    with pytest.raises(DatasetError, match=r"val_order\.h5"):
        read(config(root))


def test_broken_order_files_are_refused(tmp_path):
    root = order_tree(tmp_path)
    whole = (root / "test_order.h5").read_bytes()
    (root / "test_order.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"test_order\.h5"):
        read(config(root))
    with h5py.File(root / "test_order.h5", "w") as file:
        file["other"] = [0]
    with pytest.raises(DatasetError, match="no array named order"):
        read(config(root))


def test_order_files_cannot_point_at_other_files(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with h5py.File(elsewhere / "secret.h5", "w") as file:
        file["order"] = [0, 1]
    (elsewhere / "raw.bin").write_bytes(np.array([0, 1]).tobytes())
    root = tmp_path / "root"
    root.mkdir()
    order_tree(root)
    with h5py.File(root / "test_order.h5", "w") as file:
        file["order"] = h5py.ExternalLink(str(elsewhere / "secret.h5"), "order")
    with pytest.raises(DatasetError, match="no array named order"):
        read(config(root))
    with h5py.File(root / "test_order.h5", "w") as file:
        file.create_dataset(
            "order", (2,), dtype=np.int64, external=[(str(elsewhere / "raw.bin"), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(DatasetError, match="not a list of row numbers"):
        read(config(root))


def test_without_h5py_the_error_names_the_extra(tmp_path, monkeypatch):
    root = order_tree(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DatasetError, match=r'pip install "avtune\[hdf5\]"'):
        read(config(root))


@pytest.fixture(scope="module")
def real_root(annotations_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("ave")
    for path in (annotations_dir / "ave").iterdir():
        if "sample" not in path.name:
            os.symlink(path, root / path.name)
    return root


def test_real_official_split(real_root):
    collection = read(config(real_root))
    splits = collection.splits
    assert {name: len(records) for name, records in splits.items()} == {
        "train": 3339,
        "validation": 402,
        "test": 402,
    }
    assert len(collection.labels) == 28
    assert collection.labels[:3] == ("Church bell", "Male speech, man speaking", "Bark")
    assert collection.labels[-1] == "Mandolin"
    assert "18 video ids" in collection.warnings[0]
    assert "8 in train and test, 10 in train and validation" in collection.warnings[0]
    assert sum(not record.events for record in collection.records) == 1
    assert len({record.name for record in collection.records}) == 4097
    truth = {
        name: np.stack([segment_labels(record.events, collection.labels, 10, 1.0) for record in records])
        for name, records in splits.items()
    }
    assert truth["test"].size == 4020
    assert round(100 * float((truth["test"] == 28).mean()), 1) == 17.8
    whole = np.concatenate(list(truth.values()))
    assert round(100 * float((whole != 28).all(axis=1).mean()), 1) == 66.4
    assert round(100 * float((truth["test"] != 28).all(axis=1).mean()), 1) == 64.9


def test_real_clean_split_shares_no_video(real_root):
    collection = read(config(real_root, split="clean"))
    videos = {name: {record.name for record in records} for name, records in collection.splits.items()}
    assert not videos["train"] & videos["test"]
    assert not videos["train"] & videos["validation"]
    assert not videos["validation"] & videos["test"]
    assert [len(collection.splits[name]) for name in ("train", "validation", "test")] == [3320, 402, 402]
    assert collection.warnings == ("split clean: 19 of 3339 train rows dropped, their videos are held out",)


def test_real_rows_with_header_equal_those_without(annotations_dir):
    sample = read_rows(annotations_dir / "ave" / "Annotations_with_header_sample.txt")
    whole = read_rows(annotations_dir / "ave" / "Annotations.txt")
    assert len(sample) >= 3
    for row, same in zip(sample, whole, strict=False):
        assert (row.category, row.video, row.start, row.end) == (
            same.category,
            same.video,
            same.start,
            same.end,
        )
