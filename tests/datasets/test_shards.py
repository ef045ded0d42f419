"""Shards of real clips, written by the command line, held against the folder that they were made of."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shard_case import (
    CLIPS,
    GIGABYTES,
    LABELS,
    as_json,
    collection_of,
    samples,
    shard,
    write_clips,
    write_tar,
)
from test_clips_dataset import write_clip

from avtune.cli import main
from avtune.config import AudioInput, DataConfig, InputConfig
from avtune.datasets import Collection, DatasetError, FrameFolder, Record, read
from avtune.datasets.check import check
from avtune.datasets.clips import ClipDataset, prepare_all
from avtune.datasets.disk_cache import DiskCache, clip_key
from avtune.datasets.manifest import restrict
from avtune.datasets.sections import cut
from avtune.datasets.shard_index import index_path, read_index
from avtune.datasets.shard_writing import write_shards
from avtune.media import FilePart, decode, probe
from avtune.train.evaluate import loader
from avtune.transforms import Damaged, Preprocessing, Sample

PREPROCESSING = Preprocessing.from_config(
    InputConfig(segments=2, audio=AudioInput(preset="nano")), size=32, mean=(0.5,) * 3, std=(0.5,) * 3
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def shards(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "shards"
    assert shard(root, out) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def equal(one: Sample | Damaged, other: Sample | Damaged) -> bool:
    if not (isinstance(one, Sample) and isinstance(other, Sample)):
        return False
    tensors = ("frames", "spectrogram", "has_video", "has_audio", "valid")
    return one.name == other.name and all(
        torch.equal(getattr(one.prepared, name), getattr(other.prepared, name)) for name in tensors
    )


def assert_equal(one: Collection, other: Collection, preprocessing: Preprocessing = PREPROCESSING) -> None:
    """The same clips with the same truths in the same order, and the same tensors."""
    assert one.labels == other.labels
    assert one.splits.keys() == other.splits.keys()
    for split, records in one.splits.items():
        assert [(r.name, r.events, r.start) for r in records] == [
            (r.name, r.events, r.start) for r in other.splits[split]
        ]
    mine, theirs = samples(one, preprocessing), samples(other, preprocessing)
    for split in mine:
        assert len(mine[split]) > 0
        assert all(map(equal, mine[split], theirs[split]))


def test_clips_of_shards_are_those_of_the_folder_bit_for_bit(root: Path, shards: Path) -> None:
    assert_equal(collection_of(shards), collection_of(root, "folder"))


def test_shards_stay_within_their_size_and_are_shuffled_by_the_seed(
    root: Path, shards: Path, tmp_path: Path
) -> None:
    tars = sorted(shards.glob("train-*.tar"))
    assert len(tars) >= 3
    assert all(path.stat().st_size <= GIGABYTES * 1e9 for path in shards.glob("*.tar"))
    places = [int(sample.part.name[:8]) for path in tars for sample in read_index(path).samples]
    assert sorted(places) == list(range(len(places)))
    assert places != sorted(places)
    assert shard(root, tmp_path / "again", "--workers", "2") == 0
    assert contents(tmp_path / "again") == contents(shards)
    assert shard(root, tmp_path / "other", "--seed", "1") == 0
    assert contents(tmp_path / "other").keys() == contents(shards).keys()
    assert contents(tmp_path / "other") != contents(shards)
    assert_equal(collection_of(tmp_path / "other"), collection_of(shards))


def test_the_library_webdataset_would_find_the_same_keys(shards: Path) -> None:
    for path in shards.glob("*.tar"):
        names = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True).stdout.split()
        assert [name.partition(".")[0] for name in names[::2]] == [
            name.partition(".")[0] for name in names[1::2]
        ]
        assert {name.partition(".")[2] for name in names} == {"mp4", "json"}


def test_a_killed_sharding_goes_on_to_the_same_bytes(root: Path, shards: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from avtune.datasets import shard_writing\n"
        "probe, read = shard_writing.probe, []\n"
        "def die(source):\n"
        "    read.append(source)\n"
        "    if len(read) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return probe(source)\n"
        "shard_writing.probe = die\n"
        "from avtune.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    out = tmp_path / "killed"
    command = [
        "data", "shard", f"--data.root={root}", "--data.name=folder", "--out", str(out), "--workers", "0",
        "--gigabytes", str(GIGABYTES),
    ]  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr[-2000:]
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 0 < len(done) < len(list(shards.glob("*.tar")))
    assert list(out.glob(".*"))
    with pytest.raises(DatasetError, match=r"shards have no index.*began them again"):
        collection_of(out)
    assert main(command) == 0
    assert contents(out) == contents(shards)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done


def test_other_clips_or_settings_are_refused_where_shards_are(
    root: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(shards)
    for options in (["--seed", "5"], ["--gigabytes", "1"], ["--data.validation_share=0.4"]):
        assert shard(root, shards, *options) == 1
        assert "holds shards of other clips or settings" in " ".join(capsys.readouterr().err.split())
    assert shard(root, shards) == 0
    assert contents(shards) == before


def test_damaged_files_are_listed_and_left_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "clips"
    shutil.copytree(root, broken)
    (broken / "hum" / "0.mp4").write_bytes(b"no video at all")
    (broken / "hum" / "1.mp4").write_bytes((root / "hum" / "1.mp4").read_bytes()[:40])
    for _ in range(2):  # the second call writes nothing and still lists them
        assert shard(broken, tmp_path / "out") == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "2 files could not be read" in printed
        assert "hum/0.mp4: is text" in printed
        assert "hum/1.mp4: has no video or audio stream that can be decoded" in printed
        assert f"{2 * CLIPS - 2} samples" in printed
    found = collection_of(tmp_path / "out")
    assert len(found.records) == 2 * CLIPS - 2
    assert any("2 samples are left out" in warning for warning in found.warnings)


def test_a_shard_that_is_cut_off_later_loses_its_tail_alone(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "cut")
    victim = sorted((tmp_path / "cut").glob("train-*.tar"))[0]
    index = read_index(victim)
    assert len(index.samples) >= 2
    last = index.samples[-1].part
    victim.write_bytes(victim.read_bytes()[: last.offset + last.size // 2])
    mine, whole = (samples(collection_of(folder), PREPROCESSING) for folder in (tmp_path / "cut", shards))
    bad = [sample for split in mine.values() for sample in split if isinstance(sample, Damaged)]
    assert len(bad) == 1
    assert "which was cut off; copy or download it again" in bad[0].problem
    assert bad[0].path == str(last.path).replace(str(shards), str(tmp_path / "cut"))
    for split in whole:
        assert len(mine[split]) == len(whole[split])
        assert sum(map(equal, mine[split], whole[split])) == len(whole[split]) - (split == "train")


def test_bytes_that_change_later_lose_their_clip_alone(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "changed")
    victim = sorted((tmp_path / "changed").glob("train-*.tar"))[0]
    part = read_index(victim).samples[0].part
    content = bytearray(victim.read_bytes())
    middle = part.offset + part.size // 2
    # Few enough for FFmpeg to decode something of it without a word.
    content[middle : middle + 4] = bytes(byte ^ 0xFF for byte in content[middle : middle + 4])
    victim.write_bytes(content)
    changed = collection_of(tmp_path / "changed")
    mine, whole = (samples(found, PREPROCESSING) for found in (changed, collection_of(shards)))
    (bad,) = (sample for split in mine.values() for sample in split if isinstance(sample, Damaged))
    assert (bad.path, bad.problem) == (
        str(part.path),
        "is damaged: its checksum is another; copy or download it again",
    )
    good = sum(equal(*pair) for split in whole for pair in zip(mine[split], whole[split], strict=True))
    assert good == 2 * CLIPS - 1
    # A file of several clips is decoded at once.
    record = next(record for record in changed.records if record.source == part)
    sections = prepare_all([record, replace(record, start=1.0)], PREPROCESSING)
    assert all(isinstance(clip, Damaged) for clip in sections)
    unusable = [facts.name for facts in check(changed, workers=0).files if not facts.usable]
    assert unusable == [f"{victim.name}/{part.name}"]


def test_a_lost_index_is_found_again_and_lost_shards_are_missing(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "lost")
    index_path(tmp_path / "lost" / "train-000001.tar").unlink()
    index_path(tmp_path / "lost" / "test-000000.tar").unlink()
    assert main(["data", "index", str(tmp_path / "lost"), "--workers", "0"]) == 0
    assert contents(tmp_path / "lost") == contents(shards)


def test_prepared_shards_hold_what_the_recipe_takes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, inputs = "bandstand/lavish_nano", ["--input.segments=2", "--input.video.size=32"]
    write_clip(root / "hum" / "long.mp4", seconds=4.0, seed=50)
    assert shard(root, tmp_path / "out", recipe, "--prepared", *inputs) == 0
    (root / "hum" / "long.mp4").unlink()
    collection = collection_of(tmp_path / "out")
    assert collection.preprocessing is not None
    preprocessing = Preprocessing.from_state(collection.preprocessing)
    assert (preprocessing.segments, preprocessing.size) == (2, 32)
    long = [record for record in collection.records if record.name == "hum/long.mp4"]
    assert sorted(record.start for record in long) == [0.0, 2.0]
    # Reading stored tensors decodes nothing, and sections stay what they are.
    monkeypatch.setattr("avtune.transforms.preprocessing.probe", None)
    assert cut(collection, 2, 1.0).splits == collection.splits
    stored = samples(collection, preprocessing)
    monkeypatch.undo()
    names = {record.name for record in long}
    folder = {
        sample.name: sample
        for split in samples(collection_of(root, "folder"), preprocessing).values()
        for sample in split
    }
    assert all(
        equal(sample, folder[sample.name])
        for split in stored.values()
        for sample in split
        if sample.name not in names
    )
    settings = [f"--data.root={tmp_path / 'out'}", "--data.name=shards", "--out", str(tmp_path / "run")]
    assert main(["train", recipe, *settings, "--input.segments=2"]) == 1
    assert "prepared for a model with other inputs (video)" in " ".join(capsys.readouterr().err.split())
    assert shard(tmp_path / "out", tmp_path / "twice", name="shards") == 1
    assert "in shards already, as tensors" in " ".join(capsys.readouterr().err.split())
    assert shard(root, tmp_path / "none", "--prepared") == 1
    assert "name the recipe of the model" in " ".join(capsys.readouterr().err.split())


def test_media_in_shards_can_be_sharded_anew(shards: Path, root: Path, tmp_path: Path) -> None:
    assert shard(shards, tmp_path / "again", "--gigabytes", "1", name="shards") == 0
    assert len(list((tmp_path / "again").glob("*.tar"))) == 3
    assert_equal(collection_of(tmp_path / "again"), collection_of(root, "folder"))


def test_unpacked_clips_can_only_be_sharded_prepared(tmp_path: Path) -> None:
    record = Record("a", FrameFolder(tmp_path / "a", tmp_path / "a.wav"), ())
    collection = Collection("ave", tmp_path, ("x",), {"train": (record,)})
    with pytest.raises(DatasetError, match="add --prepared"):
        write_shards(collection, tmp_path / "out")
    with pytest.raises(DatasetError, match="gigabytes above 0"):
        write_shards(collection, tmp_path / "out", limit_bytes=0)


def test_shards_of_others_are_indexed_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def members(label: str, numbers: range, suffix: str) -> list[tuple[str, bytes]]:
        return [
            member
            for number in numbers
            for member in (
                (f"{label}{number}.mp4", (root / label / f"{number}.mp4").read_bytes()),
                (
                    f"{label}{number}.{suffix}",
                    as_json({"label": label}) if suffix == "json" else label.encode(),
                ),
            )
        ]

    others = tmp_path / "others"
    for label in LABELS:
        write_tar(others / "train" / f"{label}.tar", members(label, range(4), "json"))
    write_tar(others / f"val-{0:04d}.tar", [*members("hum", range(4, 5), "cls"), ("note.txt", b"hello")])
    write_tar(others / "test.tar", members("whistle", range(4, 7), "cls"))
    with pytest.raises(DatasetError, match=r"4 of 4 shards have no index.*run `avtune data index"):
        collection_of(others)
    for samples_found in (12, 0):
        assert main(["data", "index", str(others), "--workers", "0"]) == 0
        assert f"{samples_found} samples found; 4 shards have an index" in capsys.readouterr().out
    found = collection_of(others)
    assert found.labels == LABELS
    assert {split: len(records) for split, records in found.splits.items()} == {
        "train": 8, "validation": 1, "test": 3,
    }  # fmt: skip
    whole = {
        Path(sample.name).parent.name + Path(sample.name).stem: sample
        for split in samples(collection_of(root, "folder"), PREPROCESSING).values()
        for sample in split
        if isinstance(sample, Sample)
    }
    for split in samples(found, PREPROCESSING).values():
        for sample in split:
            assert isinstance(sample, Sample)
            assert torch.equal(sample.prepared.spectrogram, whole[sample.name].prepared.spectrogram)
    assert any("1 samples are left out" in warning for warning in found.warnings)
    with pytest.raises(DatasetError, match=r"holds no \.tar file"):
        collection_of(root)


def test_splits_that_others_did_not_make_are_held_out_clip_by_clip(root: Path, tmp_path: Path) -> None:
    members = [
        (f"{label}{number}.{suffix}", content)
        for label in LABELS
        for number in range(CLIPS)
        for suffix, content in (("mp4", b"x" * 40), ("cls", label.encode()))
    ]
    write_tar(tmp_path / "all.tar", members)
    assert main(["data", "index", str(tmp_path), "--workers", "0"]) == 0
    held = {split: len(records) for split, records in collection_of(tmp_path).splits.items()}
    assert held == {"train": 10, "validation": 2, "test": 2}


def test_check_and_manifest_know_files_in_shards(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    victim = sorted((tmp_path / "shards").glob("train-*.tar"))[0]
    parts = [sample.part for sample in read_index(victim).samples]
    content = bytearray(victim.read_bytes())
    content[parts[0].offset : parts[0].offset + parts[0].size] = bytes(parts[0].size)
    content[parts[1].offset : parts[1].offset + parts[1].size] = bytes(parts[1].size)
    victim.write_bytes(content)
    collection = collection_of(tmp_path / "shards")
    report = check(collection, workers=0)
    bad = [facts.name for facts in report.files if not facts.usable]
    assert sorted(bad) == sorted(f"{victim.name}/{part.name}" for part in parts[:2])
    assert len(report.files) == 2 * CLIPS
    report.write(tmp_path / "manifest.json")
    assert len(restrict(collection, tmp_path / "manifest.json").records) == 2 * CLIPS - 2


def test_loader_processes_read_what_one_process_reads(shards: Path) -> None:
    dataset = ClipDataset(collection_of(shards).splits["train"], PREPROCESSING)
    batches = [[5, 0], [3, 1], [4, 2]]
    for one, other in zip(loader(dataset, batches, 0), loader(dataset, batches, 1), strict=True):
        assert one.names == other.names
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.spectrogram, other.spectrogram)


def test_a_dataset_that_is_sent_on_and_on_keeps_its_records(shards: Path) -> None:
    records = [record for _ in range(4) for record in collection_of(shards).splits["train"]]
    sent = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(ClipDataset(records, PREPROCESSING)))))
    assert len(sent) == len(records) > 16
    assert [sent.records[k] for k in range(len(records))] == records


def test_parts_of_one_shard_are_kept_apart(shards: Path, tmp_path: Path) -> None:
    records = collection_of(shards).splits["train"][:4]
    keys = {
        clip_key(r.source, 0.0, PREPROCESSING, whole_file=False)
        for r in records
        if isinstance(r.source, FilePart)
    }
    assert len(keys) == 4
    disk = DiskCache.open(tmp_path / "cache", 1.0)
    first = prepare_all(records, PREPROCESSING, disk=disk)
    again = prepare_all(records, PREPROCESSING, disk=disk)
    for one, other in zip(first, again, strict=True):
        assert not isinstance(one, Damaged)
        assert not isinstance(other, Damaged)
        assert torch.equal(one.frames, other.frames)
    assert len({str(record.path) for record in records}) == 4


def test_a_part_is_decoded_as_the_file_it_was(root: Path, shards: Path) -> None:
    record = collection_of(shards).splits["train"][0]
    part, file = record.source, root / record.name
    assert isinstance(part, FilePart)
    assert part.duration == probe(file).duration
    mine, theirs = (decode(source, [0.1, 1.5], sample_rate=16000) for source in (part, file))
    assert mine.frames is not None
    assert theirs.frames is not None
    assert all((one == other).all() for one, other in zip(mine.frames, theirs.frames, strict=True))
    assert mine.waveform is not None
    assert theirs.waveform is not None
    assert (mine.waveform == theirs.waveform).all()
    assert probe(part).size_bytes == os.path.getsize(file)
    assert mine.path == part.path


def test_what_cannot_be_shards_is_one_line(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        collection_of(tmp_path / "absent")
    shutil.copytree(shards, tmp_path / "odd")
    description = json.loads((tmp_path / "odd" / "shards.json").read_text())
    for change, words in (
        ({"format": 9}, "is of format 9"),
        ({"shards": {"train": "many"}}, "is damaged"),
        ({"preprocessing": 3}, "is damaged"),
    ):
        (tmp_path / "odd" / "shards.json").write_text(json.dumps({**description, **change}))
        with pytest.raises(DatasetError, match=words):
            collection_of(tmp_path / "odd")
    for config, words in (
        (DataConfig(name="folder", root=str(tmp_path), shards_at_once=2), "is for the dataset shards"),
        (
            DataConfig(name="shards", root=str(shards), split="clean"),
            "holds shards of the split official, not clean",
        ),
    ):
        with pytest.raises(DatasetError, match=words):
            read(config)
