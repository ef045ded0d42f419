"""What was downloaded of a dataset changes neither its classes nor their order; what splits share is said."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import READERS, Collection, DatasetError, Record, existing, read
from avtune.datasets.check import check
from avtune.datasets.leaks import leak_warnings, youtube_video

CLASSES = ("horn", "bell", "rain")


def table(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def ave_files() -> dict[str, str]:
    rows = {
        split: [f"{CLASSES[k % 3]}&{split}{k}&good&0&5" for k in range(6)]
        for split in ("train", "val", "test")
    }
    lists = {f"{split}Set.txt": "\n".join(lines) for split, lines in rows.items()}
    return {"Annotations.txt": "\n".join(line for lines in rows.values() for line in lines), **lists}


def classes_files() -> dict[str, str]:
    rows: list[list[object]] = [["file", "label", "heard", "seen", "split"]]
    rows += [
        [f"AVE/c{k}.mp4", CLASSES[k % 3], "horn;bell", "rain", "train" if k < 9 else "test"]
        for k in range(12)
    ]
    return {"classes.csv": table(rows)}


def vggsound_files() -> dict[str, str]:
    rows: list[list[object]] = [
        [f"video{k:06d}", 10, CLASSES[k % 3], "train" if k < 9 else "test"] for k in range(12)
    ]
    return {"vggsound.csv": table(rows)}


def crema_d_files() -> dict[str, str]:
    codes = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    rows = [[f"{1001 + k}_DFA_{codes[k % 6]}_XX", codes[k % 6]] for k in range(18)]
    return {"train.csv": table([*rows[:12]]), "test.csv": table([*rows[12:]])}


def kinetics_files() -> dict[str, str]:
    rows: list[list[object]] = [[f"video{k:06d}_000001_000011", 10, k % 31] for k in range(93)]
    return {"my_train.txt": table(rows[:62]), "my_test.txt": table(rows[62:])}


def llp_files() -> dict[str, str]:
    labels = ("Speech", "Dog", "Car,Dog")
    rows = [f"video{k:06d}_0_10\t{labels[k % 3]}\n" for k in range(12)]
    head = "filename\tevent_labels\n"
    return {"AVVP_train.csv": head + "".join(rows[:9]), "AVVP_test_pd.csv": head + "".join(rows[9:])}


def audioset_files() -> dict[str, str]:
    names = "".join(f'{k},/m/{k},"{name}"\n' for k, name in enumerate(CLASSES))
    rows = [f'video{k:06d}, 0.000, 10.000, "/m/{k % 3},/m/1"\n' for k in range(12)]
    return {
        "class_labels_indices.csv": f"index,mid,display_name\n{names}",
        "balanced_train_segments.csv": "".join(rows[:9]),
        "eval_segments.csv": "".join(rows[9:]),
    }


def music_avqa_files() -> dict[str, str]:
    answers = ("two", "yes", "left")

    def rows(first: int, end: int) -> str:
        return json.dumps([
            {"video_id": f"{k // 6 * 3 + k % 3:08d}", "question_id": k, "type": '["Audio", "Counting"]',
             "question_content": "How many instruments?", "templ_values": "[]", "anser": answers[k % 3]}
            for k in range(first, end)
        ])  # fmt: skip

    return {"avqa-train.json": rows(0, 12), "avqa-val.json": rows(12, 16), "avqa-test.json": rows(16, 20)}


def csv_files() -> dict[str, str]:
    rows: list[list[object]] = [["file", "label", "start", "end"]]
    rows += [[f"day{k % 2}/clip{k}.mp4", CLASSES[k % 3], 0, 4] for k in range(12)]
    return {"events.csv": table(rows)}


def avsbench_s4_files() -> dict[str, str]:
    splits = ("train",) * 9 + ("val", "test", "test")
    rows: list[list[object]] = [["name", "category", "split"]]
    rows += [[f"video{k:06d}_0", CLASSES[k % 3], split] for k, split in enumerate(splits)]
    return {"Single-source/s4_meta_data.csv": table(rows)}


def msrvtt_files() -> dict[str, str]:
    splits = ("train",) * 9 + ("validate", "test", "test")
    videos = [{"video_id": f"video{k}", "category": k % 3, "split": split} for k, split in enumerate(splits)]
    return {"MSRVTT_data.json": json.dumps({"videos": videos})}


def questions_files() -> dict[str, str]:
    splits = ("train",) * 9 + ("val", "test", "test")
    rows = [
        {"video_id": f"video{k}", "question_content": "How many?", "answer": ("two", "yes", "left")[k % 3],
         "split": split}
        for k, split in enumerate(splits)
    ]  # fmt: skip
    return {"questions.json": json.dumps(rows)}


def heard_seen_files() -> dict[str, str]:
    rows: list[list[object]] = [[f"clip{k}.mp4", CLASSES[k % 3], 0, 4] for k in range(12)]
    text = table([["file", "label", "start", "end"], *rows])
    return {"heard.csv": text, "seen.csv": text}


FILES: dict[str, Callable[[], dict[str, str]]] = {
    "ave": ave_files,
    "bandstand": ave_files,
    "bandstand_classes": classes_files,
    "vggsound": vggsound_files,
    "crema_d": crema_d_files,
    "kinetics_sound": kinetics_files,
    "llp": llp_files,
    "audioset": audioset_files,
    "music_avqa": music_avqa_files,
    "csv": csv_files,
    "avsbench_s4": avsbench_s4_files,
    "msrvtt": msrvtt_files,
    "questions": questions_files,
    "heard_seen": heard_seen_files,
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def truths(collection: Collection) -> dict[str, tuple[int, ...]]:
    """Class indices of each clip."""
    index = {label: number for number, label in enumerate(collection.labels)}
    return {record.name: tuple(index[label] for label in record.truths) for record in collection.records}


@pytest.mark.parametrize("name", FILES)
def test_classes_keep_their_indices_however_little_was_downloaded(tmp_path: Path, name: str) -> None:
    assert name in READERS
    config = DataConfig(name=name, root=str(write(tmp_path, FILES[name]())))
    listed = read(config)
    assert len(listed.labels) >= 3
    for record in listed.records:
        for path in record.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    whole = existing(read(config))
    assert whole.missing == ()
    assert truths(whole) == truths(listed)
    # All clips but those of one class in training are gone, with one clip of each other split.
    train = listed.splits["train"]
    last = {label for record in train for label in record.truths} - set(train[0].truths)
    kept = {record.files[0] for record in train if max(last) in record.truths}
    gone = {record.files[0] for record in train} - kept
    gone |= {split[0].files[0] for name, split in listed.splits.items() if name != "train" and split}
    for path in gone:
        path.unlink()
    partial = existing(read(config))
    assert 0 < len(partial.records) < len(listed.records)
    assert partial.labels == listed.labels
    assert partial.words == listed.words
    assert truths(partial).items() <= truths(listed).items()
    assert len(partial.missing) == len(listed.records) - len(partial.records)
    report = check(listed, workers=0)
    assert report.count("missing") == len(gone)
    assert {split: counts[0] for split, counts in report.clips_per_split.items()} == {
        split: len(records) for split, records in listed.splits.items()
    }


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_unknown_split_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, FILES[name]())
    with pytest.raises(DatasetError, match="'offical'") as caught:
        read(DataConfig(name=name, root=str(tmp_path), split="offical"))
    assert "\n" not in str(caught.value)


def test_a_reader_with_a_split_that_nothing_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Collection("mine", Path(), ("a",), {"train": (), "val": ()})
    monkeypatch.setattr("avtune.datasets.READERS", {"mine": lambda config: mine})
    with pytest.raises(DatasetError, match="the reader mine names a split 'val', which nothing reads"):
        read(DataConfig(name="mine"))


def test_youtube_ids_in_the_names_of_clips() -> None:
    names = {"--4-0ihtnBU_000058_000068": "--4-0ihtnBU", "zsioP0x1I1w_348": "zsioP0x1I1w", "BjCEufrlXm4": "BjCEufrlXm4",
             "clip_1": "clip_1", "v1s/zsioP0x1I1w_3_8": "zsioP0x1I1w"}  # fmt: skip
    for name, video in names.items():
        assert youtube_video(Record(name, Path(name), ())) == video


@pytest.mark.parametrize(
    ("name", "file", "row", "clip"),
    [
        ("vggsound", "vggsound.csv", "video000000,99,bell,test\n", "videos"),
        ("kinetics_sound", "my_test.txt", "video000000_000077_000087,10,3\n", "videos"),
        ("llp", "AVVP_test_pd.csv", "video000000_50_60\tDog\n", "videos"),
        ("audioset", "eval_segments.csv", 'video000000, 0.000, 10.000, "/m/2"\n', "videos"),
        ("avsbench_s4", "Single-source/s4_meta_data.csv", "video000000_7,horn,test\n", "videos"),
        ("crema_d", "test.csv", "1001_IEO_SAD_XX,SAD\n", "actors"),
        ("ave", "testSet.txt", "\nbell&train0&good&0&5", "video ids"),
    ],
)
def test_a_recording_in_two_splits_is_said(tmp_path: Path, name: str, file: str, row: str, clip: str) -> None:
    root = write(tmp_path, FILES[name]())
    config = DataConfig(name=name, root=str(root))
    assert not any(f"{clip} " in warning for warning in read(config).warnings)
    with (root / file).open("a") as lines:
        lines.write(row)
    (said,) = [warning for warning in read(config).warnings if f"{clip} " in warning]
    assert said.startswith(f"1 {clip} ")
    assert "train and test" in said


def test_leaks_between_any_two_splits_are_counted() -> None:
    def records(*names: str) -> list[Record]:
        return [Record(name, Path(name), ()) for name in names]

    splits = {"train": records("a", "b", "c"), "validation": records("b"), "test": records("a", "b", "d")}
    assert leak_warnings(splits, lambda record: record.name, "tapes") == (
        "2 tapes are in two splits (1 in train and validation, 2 in train and test, 1 in validation and test), "
        "so a score is slightly too good",
    )
    assert (
        leak_warnings({"train": records("a"), "test": records("b")}, lambda record: record.name, "tapes")
        == ()
    )


def test_bandstand_classes_are_what_is_both_heard_and_seen(tmp_path: Path) -> None:
    collection = read(DataConfig(name="bandstand_classes", root=str(write(tmp_path, classes_files()))))
    assert collection.labels == ("bell", "horn", "rain")
    assert [len(records) for records in collection.splits.values()] == [9, 0, 3]
    first = collection.splits["train"][0]
    assert (first.name, first.truths, first.source) == ("c0", ("horn",), tmp_path / "AVE" / "c0.mp4")
    header = "file,label,heard,seen,split\n"
    for text, words in (
        ("a,b,c,d,e\n", "the first line has to be file,label,heard,seen,split"),
        (f"{header}a.mp4,bell,bell,bell,dev\n", "classes.csv line 2: split 'dev' is unknown"),
        (f"{header}../a.mp4,bell,bell,bell,train\n", "classes.csv line 2: .* leads out of the root"),
        (f"{header}a.mp4,bell,bell,bell,test\n", "puts no clip into train"),
    ):
        write(tmp_path, {"classes.csv": text})
        with pytest.raises(DatasetError, match=words):
            read(DataConfig(name="bandstand_classes", root=str(tmp_path)))
    (tmp_path / "classes.csv").unlink()
    with pytest.raises(DatasetError, match=r"classes\.csv is not there"):
        read(DataConfig(name="bandstand_classes", root=str(tmp_path)))
