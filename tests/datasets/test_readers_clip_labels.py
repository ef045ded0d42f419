"""Readers of whole clips with one label: made-up files in the datasets' formats, and the real lists."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import Collection, DatasetError, FrameFolder, existing, read
from avtune.datasets.crema_d import EMOTIONS, read_votes


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return root


def config(name: str, root: Path, **changes: object) -> DataConfig:
    return DataConfig(name=name, root=str(root), **changes)  # type: ignore[arg-type]


def labels_of(collection: Collection, split: str) -> dict[str, str]:
    return {record.name: record.events[0].label for record in collection.splits[split]}


VGG = {
    "stat.csv": 'dog barking,3,animals\n"bird chirping, tweeting",2,animals\ncello,1,music\n',
    "train.csv": "".join(f"clip{k}_00000{k}.mp4,dog barking\n" for k in range(9))
    + '"b_000010.mp4","bird chirping, tweeting"\n',
    "test.csv": "t_000000.mp4,cello\n",
}  # fmt: skip


def test_vggsound_takes_its_classes_from_the_lists_and_its_files_from_where_they_lie(tmp_path: Path) -> None:
    root = written(tmp_path, {**VGG, "videos/clip3_000003.mp4": "", "videos/t_000000.MKV": ""})
    collection = read(config("vggsound", root))
    assert collection.labels == ("dog barking", "bird chirping, tweeting", "cello")
    assert labels_of(collection, "test") == {"t_000000": "cello"}
    assert sum(len(split) for split in collection.splits.values()) == 11
    assert len(collection.splits["validation"]) > 0
    there = existing(collection)
    assert there.labels == collection.labels
    assert {record.name for record in there.records} == {"clip3_000003", "t_000000"}
    assert len(there.missing) == 9
    assert "train.csv line" in there.missing[0]


def test_vggsound_in_one_list_says_the_same(tmp_path: Path) -> None:
    rows = [
        'abc,3,"bird chirping, tweeting",train',
        "def,30,cello,test",
        *(f"x{k},{k},cello,train" for k in range(4)),
    ]
    root = written(tmp_path, {"data/vggsound.csv": "\n".join(rows) + "\n"})
    collection = read(config("vggsound", root, validation_share=0.0))
    assert collection.labels == ("bird chirping, tweeting", "cello")
    assert labels_of(collection, "test") == {"def_000030": "cello"}
    assert labels_of(collection, "train")["abc_000003"] == "bird chirping, tweeting"


def test_vggsound_without_a_training_list_can_be_scored(tmp_path: Path) -> None:
    root = written(tmp_path, {"test.csv": VGG["test.csv"]})
    collection = read(config("vggsound", root))
    assert (len(collection.splits["train"]), len(collection.splits["test"])) == (0, 1)
    assert "this can only be scored" in collection.warnings[0]


def test_the_real_vggsound_list(annotations_dir: Path) -> None:
    collection = read(config("vggsound", annotations_dir / "vggsound"))
    assert len(collection.splits["test"]) == 15446
    assert len(collection.labels) == 309
    assert len(set(labels_of(collection, "test").values())) == 309


def crema(tmp_path: Path, folder: str = "") -> Path:
    names = [
        f"10{actor:02d}_{sentence}_{code}_XX,{code}"
        for actor in range(20)
        for sentence in ("DFA", "IEO")
        for code in EMOTIONS
    ]
    return written(
        tmp_path,
        {
            f"{folder}train.csv": "\n".join(names[::2] + names[1::4]) + "\n",
            f"{folder}test.csv": "\n".join(names[3::4]) + "\n",
        },
    )


def test_crema_d_warns_of_actors_that_are_in_both_and_keeps_them_apart_when_asked(tmp_path: Path) -> None:
    root = crema(tmp_path)
    official = read(config("crema_d", root))
    assert official.labels == ("neutral", "happy", "sad", "fear", "disgust", "anger")
    assert "20 actors are in train and test" in official.warnings[-1]
    clean = read(config("crema_d", root, split="clean"))
    actors = {split: {record.name[:4] for record in clean.splits[split]} for split in clean.splits}
    assert [len(actors[split]) for split in ("train", "validation", "test")] == [14, 2, 4]
    assert not actors["train"] & actors["test"]
    assert not actors["validation"] & (actors["train"] | actors["test"])
    assert sorted(record.name for record in clean.records) == sorted(
        record.name for record in official.records
    )
    other = read(config("crema_d", root, split="clean", split_seed=1))
    assert {record.name[:4] for record in other.splits["test"]} != actors["test"]


def test_crema_d_is_read_unpacked_too(tmp_path: Path) -> None:
    root = crema(tmp_path, "Annotations/")
    (root / "frames/Image-01-FPS").mkdir(parents=True)
    (root / "AudioWAV").mkdir()
    record = read(config("crema_d", root)).splits["test"][0]
    assert isinstance(record.source, FrameFolder)
    assert record.source.frames == root / "frames/Image-01-FPS" / record.name
    assert record.source.audio == root / "AudioWAV" / f"{record.name}.wav"
    written(root, {"VideoFlash/1000_DFA_NEU_XX.flv": ""})
    assert {type(record.source) for record in read(config("crema_d", root)).records} != {FrameFolder}


def test_the_real_crema_d_lists(annotations_dir: Path) -> None:
    root = annotations_dir / "crema_d"
    collection = read(config("crema_d", root, validation_share=0.0))
    assert (len(collection.splits["train"]), len(collection.splits["test"])) == (6698, 744)
    assert "91 actors are in train and test" in collection.warnings[-1]
    assert Counter(record.events[0].label for record in collection.records) == {
        "neutral": 1087, **dict.fromkeys(("happy", "sad", "fear", "disgust", "anger"), 1271)
    }  # fmt: skip
    votes = read_votes(root / "summaryTable.csv")
    assert len(votes) == 7442
    assert votes["1001_IEO_HAP_LO"].voice == ("neutral",)
    assert votes["1001_IEO_HAP_LO"].both == ("happy",)
    assert any(len(vote.both) > 1 for vote in votes.values())


def test_rows_in_which_nothing_stands_are_skipped(tmp_path: Path, annotations_dir: Path) -> None:
    blank = "\n   \n , \t,\n"
    votes = (annotations_dir / "crema_d" / "summaryTable.csv").read_text(encoding="utf-8")
    written(tmp_path, {name: text + blank for name, text in VGG.items()})
    written(tmp_path, {"summaryTable.csv": votes + blank})
    assert len(read(config("vggsound", tmp_path)).records) == 11
    assert len(read_votes(tmp_path / "summaryTable.csv")) == 7442


@pytest.mark.parametrize("seed", range(4))
def test_clips_of_one_video_are_held_out_together(tmp_path: Path, seed: int) -> None:
    rows = [f"video{k % 6:06d},{k},{label},train" for label in ("dog", "cat") for k in range(30)]
    root = written(tmp_path, {"vggsound.csv": "\n".join([*rows, "other000000,1,dog,test"])})
    collection = read(config("vggsound", root, split_seed=seed, validation_share=0.3))
    videos = {split: {record.name[:11] for record in records} for split, records in collection.splits.items()}
    assert len(videos["validation"]) == 2
    assert videos["train"] | videos["validation"] == {f"video{k:06d}" for k in range(6)}
    assert not videos["train"] & videos["validation"]
    assert collection.warnings == ()


def test_kinetics_sound_by_number_or_by_name(tmp_path: Path, annotations_dir: Path) -> None:
    shutil.copy(annotations_dir / "kinetics_sound" / "my_test.txt", tmp_path)
    written(tmp_path, {"my_train.txt": "".join(f"a{k}_0,10,{k % 31}\n" for k in range(62))})
    collection = read(config("kinetics_sound", tmp_path))
    assert len(collection.splits["test"]) == 2597
    assert collection.labels == tuple(str(number) for number in range(31))
    assert labels_of(collection, "test")["zsioP0x1I1w_348"] == "18"
    written(tmp_path, {"classes.txt": "\n".join(f"action {number}" for number in range(31))})
    assert labels_of(read(config("kinetics_sound", tmp_path)), "test")["zsioP0x1I1w_348"] == "action 18"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("vggsound", {}, "holds no vggsound.csv, train.csv or test.csv"),
        ("vggsound", {"test.csv": "a.mp4\n"}, "test.csv line 1: expected 2 fields, found 1"),
        ("vggsound", {"test.csv": "../a.mp4,dog\n"}, "test.csv line 1: .* leads out of the root"),
        ("vggsound", {"test.csv": "a.mp4,dog\n", "stat.csv": "cat,1,x\n"}, "class 'dog' is not in stat.csv"),
        ("vggsound", {"vggsound.csv": "a,b,dog,train\n"}, "vggsound.csv line 1: expected id,start"),
        ("crema_d", {"train.csv": "1001_DFA_NEU_XX,NEU\n"}, "holds no test.csv"),
        (
            "crema_d",
            {"train.csv": "a,JOY\n", "test.csv": ""},
            "train.csv line 1: emotion 'JOY' is none of NEU",
        ),
        ("kinetics_sound", {"my_train.txt": "a,10,31\n"}, "my_train.txt line 1: class '31' must be a number"),
        ("kinetics_sound", {"classes.txt": "one\n"}, "must hold 31 different names"),
        ("kinetics_sound", {"classes.txt": "caf\udce9\n" * 31}, "classes.txt cannot be read as UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(
    tmp_path: Path, name: str, files: dict[str, str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(config(name, written(tmp_path, files)))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_the_votes_is_refused(tmp_path: Path) -> None:
    header = "FileName,VoiceVote,FaceVote,MultiModalVote\n"
    for text, message in (
        ("a,b\n1,2\n", r"summaryTable\.csv line 1: column 'FileName' is absent"),
        (f"{header}a,N,N,N\nb,N\n", r"summaryTable\.csv line 3: expected 4 fields, found 2"),
        (f"{header}a,N,Q,N\n", "vote 'Q' is none of"),
    ):
        path = tmp_path / "summaryTable.csv"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DatasetError, match=message):
            read_votes(path)
