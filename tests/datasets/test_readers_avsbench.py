"""AVSBench's readers on made-up files in the layouts of its three sets."""

import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avtune.config import DataConfig, InputConfig
from avtune.datasets import Collection, DatasetError, FrameFolder, existing, read
from avtune.datasets.clips import ClipDataset, prepare
from avtune.datasets.masks import UNLABELLED, load_masks, voc_palette
from avtune.media import write_video
from avtune.transforms import Damaged, Preprocessing, Sample


def config(name: str, root: Path, **changes: object) -> DataConfig:
    return DataConfig(name=f"avsbench_{name}", root=str(root), **changes)  # type: ignore[arg-type]


def picture(path: Path, value: object, mode: str = "RGB", size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), value).save(path)  # type: ignore[arg-type]


def sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        noise = np.random.default_rng(0).integers(-3000, 3000, round(16000 * seconds))
        file.writeframes(noise.astype("<i2").tobytes())


S4_ROWS = (
    ("a_1000_6000", "dog_barking", "train"),
    ("b", "ambulance_siren", "val"),
    ("c", "dog_barking", "test"),
)


def s4(root: Path) -> Path:
    base = root / "Single-source"
    rows = [f"{name},0,{category},{split}" for name, category, split in S4_ROWS]
    base.mkdir(parents=True)
    (base / "s4_meta_data.csv").write_text("\n".join(["name,start_time,category,split", *rows, " , ,,", ""]))
    for name, category, split in S4_ROWS:
        place = Path(split, category)
        for k in range(1, 6):
            picture(base / "s4_data/visual_frames" / place / name / f"{name}_{k}.png", (40 * k, 0, 0))
            if k == 1 or split != "train":
                picture(base / "s4_data/gt_masks" / place / name / f"{name}_{k}.png", 255 * (k % 2), "L")
        sound(base / "s4_data/audio_wav" / place / f"{name}.wav", 5)
    return root


def ms3(root: Path) -> Path:
    base = root / "Multi-sources"
    base.mkdir(parents=True)
    (base / "ms3_meta_data.csv").write_text("vid,split\nx,train\ny,test\n\nz,val\n")
    for name, split in (("x", "train"), ("y", "test"), ("z", "val")):
        for k in range(1, 6):
            picture(base / "ms3_data/visual_frames" / name / f"{name}.mp4_{k}.png", (0, 40 * k, 0))
            mask = base / "ms3_data/gt_masks" / split / name / f"{name}_{k}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            indexed = Image.new("P", (16, 16), k % 2)
            indexed.putpalette([0, 0, 0, 1, 1, 1])
            indexed.save(mask)
        sound(base / "ms3_data/audio_wav" / split / f"{name}.wav", 5)
    return root


SEMANTIC_ROWS = (
    ("s", "v1s", "train"),
    ("m", "v1m", "train"),
    ("t", "v1s", "test"),
    ("n", "v2", "train"),
    ("o", "v2", "val"),
)
NAMES = {"cat": 2, "background": 0, "accordion": 1}


def semantic(root: Path) -> Path:
    root.mkdir(parents=True)
    (root / "label2idx.json").write_text(json.dumps(NAMES))
    rows = [f"yt,{uid},0,{uid},{part},{split}" for uid, part, split in SEMANTIC_ROWS]
    (root / "metadata.csv").write_text("\n".join(["vid,uid,s_min,a_obj,label,split", *rows]) + "\n")
    palette = voc_palette(3)
    for uid, part, split in SEMANTIC_ROWS:
        frames = 10 if part == "v2" else 5
        labelled = 1 if (part, split) == ("v1s", "train") else frames
        for k in range(frames):
            picture(root / part / uid / f"frames/{k}.jpg", (0, 0, 20 * k))
            if k < labelled:
                picture(root / part / uid / f"labels_rgb/{k}.png", palette[k % 3])
        sound(root / part / uid / "audio.wav", frames)
    return root


def names(collection: Collection) -> dict[str, list[str]]:
    return {split: [record.name for record in records] for split, records in collection.splits.items()}


def test_s4_labels_the_first_frame_of_training_clips_alone(tmp_path: Path) -> None:
    collection = read(config("s4", s4(tmp_path)))
    assert names(collection) == {"train": ["a_1000_6000"], "validation": ["b"], "test": ["c"]}
    assert collection.labels == ("ambulance_siren", "dog_barking")
    assert collection.clip_seconds == 5
    train, validation = collection.splits["train"][0], collection.splits["validation"][0]
    assert train.events[0].label == "dog_barking"
    told = load_masks(train, 5, 8)
    assert (told[0] == 1).all()
    assert (told[1:] == UNLABELLED).all()
    assert [int(mask.unique()) for mask in load_masks(validation, 5, 8)] == [1, 0, 1, 0, 1]
    # The folder of the list will do as well.
    assert names(read(config("s4", tmp_path / "Single-source"))) == names(collection)


def test_ms3_counts_the_index_one_of_its_palettes_as_sounding(tmp_path: Path) -> None:
    collection = read(config("ms3", ms3(tmp_path)))
    assert names(collection) == {"train": ["x"], "validation": ["z"], "test": ["y"]}
    assert collection.labels == ("sounding",)
    for record in collection.records:
        assert [int(mask.unique()) for mask in load_masks(record, 5, 8)] == [1, 0, 1, 0, 1]


def test_the_semantic_set_has_classes_by_colour_and_its_own_supervision(tmp_path: Path) -> None:
    collection = read(config("semantic", semantic(tmp_path / "avs_released")))
    assert names(collection) == {
        "train": ["v1s/s", "v1m/m", "v2/n"],
        "validation": ["v2/o"],
        "test": ["v1s/t"],
    }
    assert collection.labels == ("accordion", "cat")
    told = {record.name: load_masks(record, 10, 8) for record in collection.records}
    labelled = {name: int((masks != UNLABELLED).all(-1).all(-1).sum()) for name, masks in told.items()}
    assert labelled == {"v1s/s": 1, "v1m/m": 5, "v2/n": 10, "v2/o": 10, "v1s/t": 5}
    assert [int(mask.unique()) for mask in told["v2/n"]] == [k % 3 for k in range(10)]


@pytest.mark.parametrize(
    ("name", "write", "segments"), [("s4", s4, 5), ("ms3", ms3, 5), ("semantic", semantic, 10)]
)
def test_clips_become_the_frames_of_their_seconds_and_padding_is_not_labelled(
    tmp_path: Path, name: str, write: object, segments: int
) -> None:
    collection = existing(read(config(name, write(tmp_path / "root"))))  # type: ignore[operator]
    assert not collection.missing
    preprocessing = Preprocessing.from_config(InputConfig(segments=segments), 16, (0.5,) * 3, (0.5,) * 3)
    channel = {"s4": 0, "ms3": 1, "semantic": 2}[name]
    assert all(isinstance(record.source, FrameFolder) for record in collection.records)
    for record in collection.records:
        dataset = ClipDataset([record], preprocessing, lambda r: load_masks(r, segments, 8))
        sample = dataset[0]
        assert isinstance(sample, Sample)
        valid, target = sample.prepared.valid, sample.target
        assert target is not None
        length = 5 if name != "semantic" or record.name.startswith("v1") else 10
        assert valid.tolist() == [k < length for k in range(segments)]
        assert (target[~valid] == UNLABELLED).all()
        seen = sample.prepared.frames[valid][:, channel].float().mean(dim=(-2, -1))
        assert (seen.diff() > 10).all()


def test_videos_are_read_where_nothing_is_unpacked(tmp_path: Path) -> None:
    root = s4(tmp_path / "s4")
    data = root / "Single-source/s4_data"
    (data / "visual_frames").rename(data / "elsewhere")
    video = data / "raw_videos/train/dog_barking/a_1000_6000.mp4"
    video.parent.mkdir(parents=True)
    write_video(video, [np.zeros((18, 32, 3), np.uint8)] * 10, 2)
    collection = existing(read(config("s4", root)))
    assert names(collection)["train"] == ["a_1000_6000"]
    assert collection.labels == ("ambulance_siren", "dog_barking")
    assert [record.source for record in collection.records] == [video]
    # S4's masks are squares, whatever the video's shape.
    assert (load_masks(collection.splits["train"][0], 1, 8) == 1).all()

    root = semantic(tmp_path / "semantic")
    for path in sorted((root / "v2/n/frames").iterdir()):
        path.unlink()
    (root / "v2/n/frames").rmdir()
    assert isinstance(read(config("semantic", root)).splits["train"][2].source, FrameFolder)
    write_video(root / "v2/n.mp4", [np.zeros((32, 32, 3), np.uint8)] * 20, 2)
    assert read(config("semantic", root)).splits["train"][2].source == root / "v2/n.mp4"


def test_classes_do_not_shift_where_clips_are_missing(tmp_path: Path) -> None:
    root = s4(tmp_path)
    wav = root / "Single-source/s4_data/audio_wav/val/ambulance_siren/b.wav"
    wav.unlink()
    collection = existing(read(config("s4", root)))
    assert collection.labels == ("ambulance_siren", "dog_barking")
    assert names(collection)["validation"] == []
    assert "b.wav is not there (s4_meta_data.csv line 3)" in collection.missing[0]


@pytest.mark.parametrize(
    ("name", "write", "picture"),
    [
        ("s4", s4, "s4_data/visual_frames/train/dog_barking/a_1000_6000/a_1000_6000_3.png"),
        ("ms3", ms3, "ms3_data/visual_frames/x/x.mp4_1.png"),
        ("semantic", semantic, "v1s/s/frames/4.jpg"),
        ("semantic", semantic, "v2/n/frames/0.jpg"),
    ],
)
def test_a_missing_picture_leaves_its_clip_out_and_shifts_nothing(
    tmp_path: Path, name: str, write: Callable[[Path], Path], picture: str
) -> None:
    root = write(tmp_path / "root")
    (missing,) = (path for path in root.rglob(Path(picture).name) if str(path).endswith(picture))
    missing.unlink()
    collection = existing(read(config(name, root)))
    preprocessing = Preprocessing.from_config(InputConfig(segments=10), 16, (0.5,) * 3, (0.5,) * 3)
    clips = {record: prepare(record, preprocessing) for record in collection.records}
    left_out = [(record, clip) for record, clip in clips.items() if isinstance(clip, Damaged)]
    assert [record.source.frames for record, _ in left_out] == [missing.parent]  # type: ignore[union-attr]
    seconds = 10 if "v2" in picture else 5
    assert f"holds {seconds - 1} pictures for its {seconds} seconds" in left_out[0][1].problem


def test_a_missing_mask_leaves_its_clip_out_with_the_reason(tmp_path: Path) -> None:
    root = ms3(tmp_path)
    (root / "Multi-sources/ms3_data/gt_masks/train/x/x_4.png").unlink()
    record = read(config("ms3", root)).splits["train"][0]
    with pytest.raises(DatasetError, match=r"x_4\.png is not there; restore the mask"):
        load_masks(record, 5, 8)


@pytest.mark.parametrize(
    ("name", "file", "content", "problem"),
    [
        ("s4", "s4_meta_data.csv", "name,start_time,kind,split\n", "line 1: column 'category' is absent"),
        ("s4", "s4_meta_data.csv", "name,s,category,split\na,0,dog,training\n", "line 2: split 'training' is none of"),
        ("s4", "s4_meta_data.csv", "name,s,category,split\na,0,dog\n", "line 2: expected 4 fields, found 3"),
        ("s4", "s4_meta_data.csv", "name,s,category,split\n../a,0,dog,train\n", "leads out of the root"),
        ("s4", "s4_meta_data.csv", "name,s,category,split\na,0,x/y,train\n", "is not a plain file name"),
        ("s4", "s4_meta_data.csv", "name,s,category,split\na,0,dog,test\n", "lists no training clip"),
        ("s4", "s4_meta_data.csv", 'name,s,category,split\n"a,0,dog,test\n', "line 2: unexpected end of data"),
        ("ms3", "ms3_meta_data.csv", "vid,split\n,train\n", "names no file"),
        ("semantic", "metadata.csv", "uid,label,split\na,v3,train\n", "label 'v3' is none of v1s, v1m, v2"),
        ("semantic", "label2idx.json", "[]", "must map each class to a number of its own"),
        ("semantic", "label2idx.json", '{"a": 0, "b": 2}', "must map each class to a number of its own"),
        ("semantic", "label2idx.json", '{"a": 0', "is not a JSON file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, file: str, content: str, problem: str) -> None:
    (tmp_path / "label2idx.json").write_text('{"background": 0, "dog": 1}')
    (tmp_path / "metadata.csv").write_text("uid,label,split\na,v2,train\n")
    (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=problem) as caught:
        read(config(name, tmp_path))
    assert "\n" not in str(caught.value)


def test_other_splits_and_absent_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no s4_meta_data\.csv"):
        read(config("s4", tmp_path))
    with pytest.raises(DatasetError, match="split 'clean' is unknown"):
        read(config("ms3", tmp_path, split="clean"))
