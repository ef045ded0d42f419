"""Prepared clips on disk: what comes back is what was computed, whoever writes at the same time and whatever broke."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from avtune.config import AudioInput, InputConfig
from avtune.datasets import DatasetError, FrameFolder, Record
from avtune.datasets.clips import ClipDataset, distinct_clips, prepare, prepare_all
from avtune.datasets.disk_cache import LEFTOVER_SECONDS, SUFFIX, DiskCache, clip_key
from avtune.media import write_video
from avtune.transforms import Damaged, Prepared, Preprocessing

PREPROCESSING = Preprocessing.from_config(
    InputConfig(segments=2, audio=AudioInput(preset="nano")), size=16, mean=(0.5,) * 3, std=(0.5,) * 3
)
SPAWN = multiprocessing.get_context("spawn")


def clip(seed: int = 0) -> Prepared:
    generator = torch.Generator().manual_seed(seed)
    return Prepared(
        frames=torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8),
        spectrogram=torch.randn(2, 64, 64, generator=generator),
        has_video=torch.tensor(True),
        has_audio=torch.tensor(seed % 2 == 0),
        valid=torch.tensor([True, False]),
        notes=("1 of 2 segments exist", "ä"),
    )


def key(number: int) -> str:
    return f"{number:064x}"


def same(one: Prepared, other: Prepared | Damaged | None) -> bool:
    return isinstance(other, Prepared) and all(
        value == getattr(other, name)
        if name == "notes"
        else torch.equal(value, getattr(other, name)) and value.dtype == getattr(other, name).dtype
        for name, value in vars(one).items()
    )


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/*{SUFFIX}"))


def size_of_one(folder: Path) -> int:
    cache = DiskCache.open(folder, 1.0)
    cache.put(key(0), clip())
    return files(folder)[0].stat().st_size


def limited(folder: Path, clips: float) -> DiskCache:
    """A cache that has room for so many clips."""
    return DiskCache.open(folder, clips * size_of_one(folder.parent / "measure") / 1e9)


def test_a_clip_comes_back_bit_for_bit(tmp_path: Path) -> None:
    cache = DiskCache.open(tmp_path / "a" / "cache", 1.0)
    assert cache.get(key(1)) is None
    for seed in range(2):
        cache.put(key(seed), clip(seed))
    again = DiskCache.open(tmp_path / "a" / "cache", 1.0)
    for seed in range(2):
        assert same(clip(seed), again.get(key(seed)))
    assert again.used_bytes == sum(path.stat().st_size for path in files(cache.folder))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "other notes"])
def test_a_damaged_file_is_no_clip_and_is_replaced(tmp_path: Path, damage: str) -> None:
    cache = DiskCache.open(tmp_path, 1.0)
    cache.put(key(3), clip())
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    elif damage == "other notes":
        content = content.replace(b"1 of 2", b"2 of 2")
    path.write_bytes(
        {"truncated": bytes(content[:-1]), "empty": b"", "text": b"{" * 99999}.get(damage, bytes(content))
    )
    assert cache.get(key(3)) is None
    cache.put(key(3), clip())
    assert same(clip(), cache.get(key(3)))
    assert DiskCache.open(tmp_path, 1.0).used_bytes == path.stat().st_size


def test_a_full_cache_keeps_what_the_run_uses(tmp_path: Path) -> None:
    cache = limited(tmp_path / "cache", 3.5)
    for number in range(5):
        cache.put(key(number), clip(number))
    # Dropping the oldest for the newest would make a cycle through five clips miss every time.
    assert [cache.get(key(number)) is not None for number in range(5)] == [True, True, True, False, False]
    assert cache.used_bytes <= cache.limit_bytes
    assert not list(cache.folder.glob("*/.*"))


def test_what_an_earlier_run_left_makes_room_the_oldest_first(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    earlier = limited(folder, 3.5)
    for number in range(3):
        earlier.put(key(number), clip(number))
        os.utime(earlier._path(key(number)), (1000.0 + number, 1000.0 + number))
    later = limited(folder, 3.5)
    assert same(clip(0), later.get(key(0)))
    for number in (3, 4, 5):
        later.put(key(number), clip(number))
    held = [later.get(key(number)) is not None for number in range(6)]
    assert held == [True, False, False, True, True, False]
    assert later.used_bytes == sum(path.stat().st_size for path in files(folder)) <= later.limit_bytes


def test_what_killed_processes_left_is_removed_but_not_what_others_write_now(tmp_path: Path) -> None:
    cache = DiskCache.open(tmp_path, 1.0)
    cache.put(key(0), clip())
    folder = files(tmp_path)[0].parent
    old, new = folder / ".dead.part", folder / ".alive.part"
    for path in (old, new):
        path.write_bytes(b"half")
    long_ago = time.time() - LEFTOVER_SECONDS - 10
    os.utime(old, (long_ago, long_ago))
    # A kill between counting and renaming leaves the count too high.
    with cache._ledger() as ledger:
        ledger.write(10**9)
    assert DiskCache.open(tmp_path, 1.0).used_bytes == files(tmp_path)[0].stat().st_size
    assert not old.exists()
    assert new.exists()


def write_many(folder: Path, limit: float, first: int) -> None:
    cache = DiskCache.open(folder, limit)
    for number in range(first, first + 30):
        cache.put(key(number % 40), clip(number % 40))
        found = cache.get(key((number * 7) % 40))
        assert found is None or same(clip((number * 7) % 40), found)


def test_processes_share_a_cache_and_its_limit(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    limit = 20.5 * size_of_one(tmp_path / "measure") / 1e9
    crew = [SPAWN.Process(target=write_many, args=(folder, limit, first)) for first in (0, 15)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(timeout=120)
    assert [process.exitcode for process in crew] == [0, 0]
    sizes = [path.stat().st_size for path in files(folder)]
    assert DiskCache.open(folder, limit).used_bytes == sum(sizes) <= limit * 1e9
    assert len(sizes) == 20
    assert not list(folder.glob("*/.*"))


def write_forever(folder: Path, started: object) -> None:
    cache = DiskCache.open(folder, 1.0)
    number = 0
    while True:
        cache.put(key(number % 5), clip(number % 5))
        number += 1
        if number == 5:
            started.set()  # type: ignore[attr-defined]


def test_a_killed_process_leaves_whole_files_and_no_lock(tmp_path: Path) -> None:
    started = SPAWN.Event()
    process = SPAWN.Process(target=write_forever, args=(tmp_path, started))
    process.start()
    assert started.wait(timeout=120)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache = DiskCache.open(tmp_path, 1.0)
    assert all(same(clip(number), cache.get(key(number))) for number in range(5))
    cache.put(key(9), clip(9))
    assert same(clip(9), cache.get(key(9)))


def test_unusable_folders_and_limits_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, gigabytes, words in (
        (tmp_path / "file", 1.0, "name a folder that can be written to"),
        (tmp_path / "cache", 0.0, "set it above 0"),
        (tmp_path / "cache", float("nan"), "set it above 0"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            DiskCache.open(folder, gigabytes)
        assert "\n" not in str(caught.value)


def test_a_disk_that_refuses_a_file_leaves_the_run_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache.open(tmp_path, 1.0)

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put(key(0), clip())
    monkeypatch.undo()
    assert cache.get(key(0)) is None
    assert cache.used_bytes == 0


def write_clip(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (round(4 * seconds), 32, 32, 3), dtype=np.uint8)
    write_video(path, frames, 4.0, rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32))
    return path


def test_the_key_is_everything_that_the_tensors_depend_on(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    keys = [
        clip_key(path, 0.0, PREPROCESSING, whole_file=False),
        clip_key(path, 1.0, PREPROCESSING, whole_file=False),
        clip_key(path, 0.0, PREPROCESSING, whole_file=True),
        clip_key(path, 0.0, replace(PREPROCESSING, size=18), whole_file=False),
        clip_key(
            path, 0.0, replace(PREPROCESSING, audio=replace(PREPROCESSING.audio, mean=0.0)), whole_file=False
        ),
    ]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    keys.append(clip_key(path, 0.0, PREPROCESSING, whole_file=False))
    moved = path.rename(tmp_path / "b.mp4")
    keys.append(clip_key(moved, 0.0, PREPROCESSING, whole_file=False))
    assert len(set(keys)) == len(keys)
    frames = tmp_path / "frames"
    frames.mkdir()
    wavfile.write(tmp_path / "a.wav", 16000, np.zeros(32000, dtype=np.int16))
    folder = FrameFolder(frames, tmp_path / "a.wav")
    unpacked = []
    for number in range(2):
        Image.new("RGB", (8, 8)).save(frames / f"{number + 1:04d}.jpg")
        unpacked.append(clip_key(folder, 0.0, PREPROCESSING, whole_file=False))
    unpacked.append(clip_key(replace(folder, array_rate=8000), 0.0, PREPROCESSING, whole_file=False))
    unpacked.append(clip_key(replace(folder, seconds=2), 0.0, PREPROCESSING, whole_file=False))
    assert len(set(unpacked)) == 4


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    short = [write_clip(tmp_path / f"{number}.mp4", seed=number) for number in range(2)]
    long = write_clip(tmp_path / "long.mp4", seconds=5.0, seed=7)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    return [
        *(Record(path.name, path, ()) for path in short),
        *(Record("long.mp4", long, (), start=start) for start in (0.0, 2.0, 3.0)),
        Record("bad.mp4", tmp_path / "bad.mp4", ()),
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_run_reads_what_the_first_decoded(
    tmp_path: Path, records: list[Record], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = prepare_all(records, PREPROCESSING)
    disk = DiskCache.open(tmp_path / "cache", 1.0)
    first = prepare_all(records, PREPROCESSING, workers, disk=disk)
    assert len(files(disk.folder)) == 5

    def decode_again(*arguments: object, **how: object) -> None:
        raise AssertionError("a clip was decoded again")

    monkeypatch.setattr(Preprocessing, "load", decode_again)
    monkeypatch.setattr(Preprocessing, "load_windows", decode_again)
    second = prepare_all(records[:5], PREPROCESSING, disk=DiskCache.open(tmp_path / "cache", 1.0))
    for one, other, third in zip(fresh[:5], first, second, strict=False):
        assert isinstance(one, Prepared)
        assert same(one, other)
        assert same(one, third)
    assert isinstance(first[5], Damaged)
    assert first[5] == fresh[5]


def test_clips_that_do_not_stay_in_memory_are_read_from_disk(tmp_path: Path, records: list[Record]) -> None:
    disk = DiskCache.open(tmp_path / "cache", 1.0)
    dataset = ClipDataset(records, PREPROCESSING, disk=disk)
    assert not dataset.cached
    first = [dataset[index] for index in range(5)]
    assert len(files(disk.folder)) == 5
    for index, record in enumerate(records[:5]):
        expected = prepare(record, PREPROCESSING)
        assert isinstance(expected, Prepared)
        assert same(expected, first[index].prepared)
        assert same(expected, dataset[index].prepared)
    # A file that is written anew is decoded anew.
    write_clip(records[0].source, seed=99)
    os.utime(records[0].source, ns=(0, 12345))
    assert not torch.equal(dataset[0].prepared.frames, first[0].prepared.frames)
    for path in files(disk.folder):
        path.write_bytes(path.read_bytes()[:-3])
    assert same(first[1].prepared, dataset[1].prepared)


def test_records_of_one_stretch_are_decoded_once_and_share_their_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_clip(tmp_path / "a.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"")
    asked = [Record(f"a/{number}", video, ()) for number in range(3)]
    lost = [Record(f"bad/{number}", tmp_path / "bad.mp4", ()) for number in range(2)]
    decoded = []
    load = Preprocessing.load

    def counted(self: Preprocessing, path: Path, start: float = 0.0) -> Prepared:
        decoded.append(path)
        return load(self, path, start)

    monkeypatch.setattr(Preprocessing, "load", counted)
    prepared = prepare_all([*asked, *lost], PREPROCESSING)
    assert decoded == [video, tmp_path / "bad.mp4"]
    assert prepared[0] is prepared[1] is prepared[2]
    assert [bad.name for bad in prepared[3:]] == ["bad/0", "bad/1"]
    assert distinct_clips([*asked, *lost, replace(asked[0], start=1.0)]) == 3
