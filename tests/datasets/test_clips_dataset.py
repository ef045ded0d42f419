import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from unpacked_case import unpacked

from avtune.config import AudioInput, DataConfig, InputConfig
from avtune.datasets import DatasetError, Event, Record, read, segment_labels
from avtune.datasets.clips import ClipDataset, clip_bytes, prepare, prepare_all
from avtune.datasets.sections import cut
from avtune.datasets.unpacked import read_picture, read_sound
from avtune.media import MediaError, write_video
from avtune.transforms import Damaged, Prepared, Preprocessing, Sample, collate

LABELS = ("hum", "whistle")
PREPROCESSING = Preprocessing.from_config(
    InputConfig(segments=4, audio=AudioInput(preset="nano")),
    size=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def write_clip(path: Path, seconds: float = 4.0, seed: int = 0, sound: bool = True) -> Path:
    """A clip whose picture brightens second by second, with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
    frames = (base + np.uint8(30 * (number // 5 % 6)) for number in range(round(seconds * 5)))
    times = np.arange(round(seconds * 16000)) / 16000
    tone = 0.3 * np.sin(2 * np.pi * (300 + 100 * seed) * times * (1 + 0.2 * np.floor(times)))
    write_video(path, frames, 5.0, tone.astype(np.float32) if sound else None)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Record]:
    root = tmp_path_factory.mktemp("clips")
    records = []
    for number in range(3):
        path = write_clip(root / f"{number}.mp4", seed=number)
        records.append(Record(path.name, path, (Event(LABELS[number % 2], 1.0, 3.0),)))
    damaged = root / "damaged.mp4"
    damaged.write_bytes(b"no video at all")
    return [*records[:2], Record("damaged.mp4", damaged, ()), records[2]]


def target(record: Record) -> torch.Tensor:
    return torch.from_numpy(segment_labels(record.events, LABELS, 4, 1.0, record.start))


def same(one: Prepared, other: Prepared) -> bool:
    tensors = ("frames", "spectrogram", "has_video", "has_audio", "valid")
    return one.notes == other.notes and all(
        torch.equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in tensors
    )


def test_samples_and_damaged_clips_keep_their_places(clips):
    dataset = ClipDataset(clips, PREPROCESSING, target)
    assert len(dataset) == 4
    samples = [dataset[index] for index in range(4)]
    assert [isinstance(sample, Damaged) for sample in samples] == [False, False, True, False]
    assert samples[2].path.endswith("damaged.mp4")
    assert samples[2].name == "damaged.mp4"
    assert samples[0].target.tolist() == [2, 0, 0, 2]
    assert samples[1].target.tolist() == [2, 1, 1, 2]
    assert same(samples[1].prepared, PREPROCESSING.load(clips[1].source))
    batch = collate(samples)
    assert batch.names == ["0.mp4", "1.mp4", "2.mp4"]
    assert [damaged.name for damaged in batch.damaged] == ["damaged.mp4"]
    without = ClipDataset(clips, PREPROCESSING)[0]
    assert isinstance(without, Sample)
    assert without.target is None


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_holds_what_decoding_gives(clips, workers):
    seen = []
    fresh = ClipDataset(clips, PREPROCESSING, target)
    prepared = prepare_all(clips, PREPROCESSING, workers, lambda done, total: seen.append((done, total)))
    cached = ClipDataset(clips, PREPROCESSING, target, prepared=prepared)
    assert cached.cached
    assert not fresh.cached
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for index in (0, 1, 3):
        assert same(cached[index].prepared, fresh[index].prepared)
        assert torch.equal(cached[index].target, fresh[index].target)
    assert cached[2] == fresh[2]
    assert cached[0].prepared is cached[0].prepared


def test_the_memory_of_a_prepared_clip_is_known_before_it_is_read(clips):
    prepared = PREPROCESSING.load(clips[0].source)
    assert clip_bytes(PREPROCESSING) == prepared.frames.nbytes + prepared.spectrogram.nbytes


def test_prepared_clips_must_match_the_records(clips):
    with pytest.raises(ValueError, match="1 prepared clips for 4 records"):
        ClipDataset(clips, PREPROCESSING, target, prepared=[PREPROCESSING.load(clips[0].source)])


def test_loader_processes_give_the_same_batches(clips):
    dataset = ClipDataset(clips, PREPROCESSING, target)
    loaders = [
        torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=workers)
        for workers in (0, 1)
    ]
    for one, other in zip(*loaders, strict=True):
        assert one.names == other.names
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.target, other.target)
        assert one.damaged == other.damaged


def test_hostile_files_are_damaged_clips(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4").read_bytes()
    rng = np.random.default_rng(0)
    noise = bytearray(whole)
    for place in rng.integers(0, len(noise), 200):
        noise[place] = int(rng.integers(0, 256))
    contents = {
        "empty": b"",
        "text": b"file,label\n",
        "half": whole[: len(whole) // 2],
        "noise": bytes(noise),
    }
    records = [Record("folder.mp4", tmp_path, ()), Record("absent.mp4", tmp_path / "absent.mp4", ())]
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        records.append(Record(name, tmp_path / f"{name}.mp4", ()))
    os.mkfifo(tmp_path / "pipe.mp4")
    records.append(Record("pipe", tmp_path / "pipe.mp4", ()))
    results = {
        record.name: result
        for record, result in zip(records, prepare_all(records, PREPROCESSING), strict=True)
    }
    for name in ("folder.mp4", "absent.mp4", "empty", "text", "pipe"):
        assert isinstance(results[name], Damaged), name
        assert "\n" not in results[name].problem
    assert all(isinstance(result, Prepared | Damaged) for result in results.values())


class Crashing(Preprocessing):
    """Ends its process on one file and hangs on another, as a broken decoder may."""

    def load(self, path, start=0.0):
        if Path(path).name == "0.mp4" and multiprocessing.parent_process() is not None:
            os._exit(11)
        if Path(path).name == "1.mp4":
            raise RuntimeError("two\nlines")
        return super().load(path, start)


def test_a_file_that_ends_its_process_harms_no_other(clips):
    crashing = Crashing(**vars(PREPROCESSING))
    started = time.monotonic()
    results = prepare_all([*clips, replace(clips[3], name="again")], crashing, workers=1)
    assert [type(result) for result in results] == [Damaged, Damaged, Damaged, Prepared, Prepared]
    assert "died (exit status 11)" in results[0].problem
    assert results[1].problem == "RuntimeError: two lines"
    assert time.monotonic() - started < 60


def test_long_files_become_sections(tmp_path):
    write_clip(tmp_path / "long.mp4", seconds=10.0)
    write_clip(tmp_path / "short.mp4", seconds=3.0, seed=1)
    (tmp_path / "broken.mp4").write_bytes(b"x")
    (tmp_path / "events.csv").write_text(
        "file,label,start,end\nlong.mp4,hum,5,7\nlong.mp4,whistle,9,10\nshort.mp4,hum,0,1\nbroken.mp4,hum,,\n"
    )
    config = DataConfig(name="csv", root=str(tmp_path), test_share=0, validation_share=0)
    records = cut(read(config), 4, 1.0).splits["train"]
    assert [(record.name, record.start) for record in records] == [
        ("long.mp4", 0.0),
        ("long.mp4", 4.0),
        ("long.mp4", 6.0),
        ("short.mp4", 0.0),
        ("broken.mp4", 0.0),
    ]
    assert [target(record).tolist() for record in records] == [
        [2, 2, 2, 2],
        [2, 0, 0, 2],
        [0, 2, 2, 1],
        [0, 2, 2, 2],
        [0, 0, 0, 0],
    ]
    dataset = ClipDataset(records, PREPROCESSING, target, prepared=prepare_all(records, PREPROCESSING))
    for index, record in enumerate(records[:4]):
        fresh = PREPROCESSING.load(record.source, record.start)
        assert torch.equal(dataset[index].prepared.frames, fresh.frames)
        assert torch.equal(dataset[index].prepared.valid, fresh.valid)
        torch.testing.assert_close(dataset[index].prepared.spectrogram, fresh.spectrogram, atol=2e-3, rtol=0)
    assert dataset[3].prepared.valid.tolist() == [True, True, True, False]
    assert isinstance(dataset[4], Damaged)


def test_a_known_clip_length_is_believed_without_opening_files(tmp_path):
    (tmp_path / "Annotations.txt").write_text("hum&a&good&0&10\n")
    for name in ("trainSet.txt", "valSet.txt", "testSet.txt"):
        (tmp_path / name).write_text("hum&a&good&0&10\n")
    collection = read(DataConfig(name="ave", root=str(tmp_path)))
    assert cut(collection, 10, 1.0) == collection
    assert [record.start for record in cut(collection, 5, 1.0).splits["train"]] == [0.0, 5.0]


@pytest.mark.parametrize("digits", [4, 8])
def test_unpacked_clips(tmp_path, digits):
    folder = unpacked(tmp_path, digits=digits)
    prepared = prepare(Record("a", folder, ()), PREPROCESSING)
    assert isinstance(prepared, Prepared)
    assert prepared.notes == ()
    # Three pictures a second: the middle of segment t is shown by picture 3 t + 1.
    assert [round(float(frame.float().mean())) for frame in prepared.frames] == pytest.approx(
        [15 * (3 * t + 1) for t in range(4)], abs=2
    )
    assert prepared.valid.all()
    assert prepared.has_audio
    later = prepare(Record("a", folder, (), start=2.0), PREPROCESSING)
    assert torch.equal(later.frames[:2], prepared.frames[2:])
    assert later.valid.tolist() == [True, True, False, False]


def test_unpacked_sound_is_read_at_the_presets_rate(tmp_path):
    faster = Preprocessing.from_config(
        InputConfig(segments=4, audio=AudioInput(preset="htsat")), size=32, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert faster.audio.sample_rate == 32000
    folder = unpacked(tmp_path)
    prepared = prepare(Record("a", folder, ()), faster)
    assert isinstance(prepared, Prepared)
    expected = faster.from_arrays(None, read_sound(folder, 32000)[0], duration=4.0)
    assert torch.equal(prepared.spectrogram, expected.spectrogram)
    slower = faster.from_arrays(None, read_sound(folder, 16000)[0], duration=4.0)
    assert not torch.allclose(prepared.spectrogram, slower.spectrogram, atol=0.1)


def test_waveform_arrays(tmp_path):
    folder = unpacked(tmp_path)
    expected, _ = read_sound(folder)
    times = np.arange(4 * 32000) / 32000
    arrays = {
        "float": (8000 / 32768 * np.sin(900 * times)).astype(np.float32),
        "int": (8000 * np.sin(900 * times)).astype(np.int16)[None],
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        found, damage = read_sound(replace(folder, audio=tmp_path / f"{name}.npy"))
        assert found.dtype == np.float32
        assert not damage.any
        assert found.shape == expected.shape
        assert np.abs(found - expected)[100:-100].max() < 2e-3


def test_waveform_arrays_are_never_unpickled(tmp_path):
    folder = unpacked(tmp_path)
    bad = {
        "pickled": np.array([{"a": 1}], dtype=object),
        "matrix": np.zeros((2, 100), dtype=np.float32),
        "empty": np.zeros(0, dtype=np.float32),
        "nan": np.full(100, np.nan, dtype=np.float32),
        "text": np.array(["a"]),
    }
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    (tmp_path / "noise.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    np.savez(tmp_path / "zip", np.zeros(3))
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    (tmp_path / "claims.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for name in (*bad, "noise", "zip", "claims", "absent"):
        with pytest.raises(MediaError):
            read_sound(replace(folder, audio=tmp_path / f"{name}.npy"))
        prepared = prepare(Record("a", replace(folder, audio=tmp_path / f"{name}.npy"), ()), PREPROCESSING)
        assert isinstance(prepared, Prepared)
        assert not prepared.has_audio
        assert any(f"{name}.npy" in note for note in prepared.notes)


def test_damaged_pictures_are_replaced_by_their_neighbours_and_named(tmp_path):
    folder = unpacked(tmp_path)
    (folder.frames / "0005.jpg").write_bytes(b"")
    prepared = prepare(Record("a", folder, ()), PREPROCESSING)
    assert any("0005.jpg" in note for note in prepared.notes)
    assert torch.equal(prepared.frames[1], prepared.frames[0])
    for path in folder.frames.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    prepared = prepare(Record("a", folder, ()), PREPROCESSING)
    assert not prepared.has_video
    assert prepared.has_audio
    folder.audio.unlink()
    assert isinstance(prepare(Record("a", folder, ()), PREPROCESSING), Damaged)


@pytest.mark.parametrize("sound", [True, False])
def test_pictures_of_one_a_second_keep_their_seconds_however_long_the_sound_is(tmp_path, sound):
    folder = unpacked(tmp_path, count=5, seconds=5)
    if not sound:
        folder.audio.unlink()
    prepared = prepare(Record("a", folder, ()), replace(PREPROCESSING, segments=8))
    assert isinstance(prepared, Prepared)
    assert [round(float(frame.float().mean()) / 15) for frame in prepared.frames[:5]] == [0, 1, 2, 3, 4]
    assert prepared.valid.tolist() == [k < 5 for k in range(8)]
    assert bool(prepared.has_audio) == sound


@pytest.mark.parametrize(
    ("count", "gone", "torn", "problem"),
    [
        (5, (3,), (), "holds 4 pictures for its 5 seconds (0001.jpg, 0002.jpg, 0004.jpg, 0005.jpg)"),
        (5, range(1, 6), (), "holds 0 pictures for its 5 seconds"),
        (6, (), (), "holds 6 pictures for its 5 seconds"),
        (5, (), (2,), "is no picture that can be decoded"),
    ],
)
def test_a_clip_of_one_picture_a_second_needs_all_of_them(tmp_path, count, gone, torn, problem):
    folder = unpacked(tmp_path, count=count, seconds=5)
    for number in gone:
        (folder.frames / f"000{number}.jpg").unlink()
    for number in torn:
        (folder.frames / f"000{number}.jpg").write_bytes(b"")
    found = prepare(Record("a", folder, ()), PREPROCESSING)
    assert isinstance(found, Damaged)
    assert found.problem == f"{problem}; unpack the clip again"


def test_a_question_that_cannot_be_read_leaves_its_clip_out(clips):
    def question(record: Record) -> torch.Tensor:
        if record.name == "0.mp4":
            raise DatasetError(
                "avqa-val.json question 7: the question has 15 words; shorten it to 14 or fewer"
            )
        return torch.zeros(14, dtype=torch.int64)

    dataset = ClipDataset(clips, PREPROCESSING, target, question)
    for samples in (dataset, dataset.unread()):
        left_out, read_too = samples[0], samples[1]
        assert isinstance(left_out, Damaged)
        assert (left_out.name, left_out.path) == ("0.mp4", str(clips[0].source))
        assert left_out.problem.startswith("avqa-val.json question 7: the question has 15 words")
        assert isinstance(read_too, Sample)


def test_pictures_are_read_by_content_and_bounded(tmp_path, monkeypatch):
    Image.new("L", (7, 5), 90).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").tolist() == [[[90] * 3] * 7] * 5
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(MediaError, match="no picture"):
        read_picture(tmp_path / "script.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(MediaError, match="no picture"):
        read_picture(tmp_path / "grey.png")
