import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from unpacked_case import unpacked

from avtune.config import DataConfig
from avtune.datasets import Collection, DatasetError, Event, FrameFolder, MaskFiles, Question, Record, read
from avtune.datasets.check import check
from avtune.datasets.manifest import PROBLEMS, restrict
from avtune.media import write_video


def write_clip(path: Path, seconds: float = 3.0, seed: int = 0, sound: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = (rng.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(round(5 * seconds)))
    tone = 0.2 * np.sin(np.arange(round(16000 * seconds)) * (0.1 + 0.05 * seed))
    write_video(path, frames, 5.0, tone.astype(np.float32) if sound else None)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Every kind of trouble in one folder, and the table that annotates it."""
    root = tmp_path_factory.mktemp("trouble")
    for seed, name in enumerate(("good", "held", "silent")):
        write_clip(root / f"{name}.mp4", seed=seed, sound=name != "silent")
    whole = (root / "good.mp4").read_bytes()
    (root / "copy.mp4").write_bytes(whole)
    (root / "half.mp4").write_bytes(whole[: len(whole) // 2])
    scratched = bytearray(whole)
    start = whole.index(b"mdat") + 4
    for place in np.random.default_rng(1).integers(start + 2000, start + 9000, 60):
        scratched[place] ^= 0xFF
    (root / "scratched.mp4").write_bytes(bytes(scratched))
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not a video\n")
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    wavfile.write(root / "sound.wav", 8000, np.zeros(24000, dtype=np.int16))
    rows = ["file,label,start,end,split", "good.mp4,hum,0,2,train", "good.mp4,horn,2,3,train"]
    rows += [f"{name}.mp4,hum,0,3,train" for name in ("silent", "half", "scratched", "empty", "text")]
    rows += ["folder.mp4,hum,,,train", "pipe.mp4,hum,,,train", "absent.mp4,hum,,,train", "sound.wav,,,,train"]
    rows += ["copy.mp4,horn,0,3,test", "held.mp4,horn,0,5,val"]
    (root / "events.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def collection(root) -> Collection:
    return read(DataConfig(name="csv", root=str(root)))


@pytest.fixture(scope="module")
def report(collection):
    return check(collection, workers=0)


def kinds(report) -> dict[str, set[str]]:
    return {facts.name: {problem.kind for problem in facts.problems} for facts in report.files}


def test_every_problem_is_named(report):
    found = kinds(report)
    expected = {
        "good.mp4": {"duplicate", "leak"},
        "copy.mp4": {"duplicate", "leak"},
        "silent.mp4": {"no_audio"},
        "empty.mp4": {"unreadable"},
        "text.mp4": {"unreadable"},
        "folder.mp4": {"unreadable"},
        "pipe.mp4": {"unreadable"},
        "absent.mp4": {"missing"},
        "sound.wav": {"no_video"},
        "held.mp4": {"short"},
    }
    for name, problems in expected.items():
        assert found[name] == problems, name
    assert "damaged" in found["scratched.mp4"]
    assert found["half.mp4"] & {"damaged", "unreadable", "short"}
    assert set(report.usable) >= {
        "good.mp4",
        "copy.mp4",
        "silent.mp4",
        "sound.wav",
        "held.mp4",
        "scratched.mp4",
    }
    assert not set(report.usable) & {"empty.mp4", "text.mp4", "folder.mp4", "pipe.mp4", "absent.mp4"}
    assert all(problem.kind in PROBLEMS for facts in report.files for problem in facts.problems)


def test_facts_of_a_good_file(report, root):
    facts = next(facts for facts in report.files if facts.name == "good.mp4")
    assert facts.size_bytes == (root / "good.mp4").stat().st_size
    assert facts.duration == pytest.approx(3.0, abs=0.15)
    assert (facts.width, facts.height) == (48, 32)
    assert (facts.video_codec, facts.audio_codec, facts.sample_rate) == ("h264", "aac", 16000)
    assert facts.damage == {}
    assert facts.splits == ("train",)
    texts = {problem.kind: problem.text for problem in facts.problems}
    assert texts["leak"] == "same bytes as copy.mp4 in test"
    assert report.duplicates == (("good.mp4", "copy.mp4"),)
    scratched = next(facts for facts in report.files if facts.name == "scratched.mp4")
    assert sum(scratched.damage.values()) > 0


def test_clips_are_counted_per_label_and_split(report):
    assert report.clips_per_label["train"] == {"horn": 1, "hum": 9, "background": 1}
    assert report.clips_per_label["test"] == {"horn": 1, "hum": 0, "background": 0}
    problems, files, labels, splits = report.tables()
    assert dict((row[0], row[1]) for row in problems.rows)["missing"] == "1"
    assert files.rows[0] == ("absent.mp4", "missing", "absent.mp4 is not there")
    assert labels.columns == ("label", "train", "validation", "test")
    assert labels.rows[0] == ("horn", "1", "1", "1")
    assert splits.columns == ("split", "annotated", "usable")
    assert [row[:2] for row in splits.rows] == [("train", "10"), ("validation", "1"), ("test", "1")]
    assert sum(int(row[2]) for row in splits.rows) == len(report.usable)
    assert report.headline().startswith(f"{len(report.usable)} of 12 files are usable")


def test_processes_find_the_same_and_report_progress(collection, report):
    seen = []
    again = check(collection, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert again == report
    assert seen == [(number, 12) for number in range(1, 13)]


def test_an_interrupted_check_leaves_no_process(collection):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(collection, workers=2, progress=interrupt)
    assert multiprocessing.active_children() == []


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from avtune.datasets.pool import map_files\nprint(map_files(len, ['a', 'bc'], workers=1))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert "DatasetError: worker processes cannot start; keep your script" in run.stderr
    script.write_text(script.read_text().replace("print(", 'if __name__ == "__main__":\n    print('))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout == "[1, 2]\n"


def test_names_that_no_terminal_can_show_are_reported(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff.mp4"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    record = Record("x", Path(os.fsdecode(raw)), ())
    report = check(Collection("folder", tmp_path, (), {"train": (record,)}), workers=0)
    assert report.tables()[1].rows[0][:2] == ("?.mp4", "unreadable")
    report.write(tmp_path / "manifest.json")
    name = json.loads((tmp_path / "manifest.json").read_text())["files"][0]["name"]
    assert os.fsencode(name) == b"\xff.mp4"


def test_a_time_limit_ends_a_file(root, collection):
    splits = {"train": collection.splits["train"][:1]}
    one = Collection("csv", root, collection.labels, splits)
    facts = check(one, workers=1, limit_seconds=0.0).files[0]
    assert not facts.usable
    assert "no result within 0 s" in facts.problems[0].text
    assert facts.sha256 is not None


def test_the_manifest_restricts_training(report, collection, tmp_path):
    path = tmp_path / "manifest.json"
    report.write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]
    content = json.loads(path.read_text())
    assert content["usable"] == list(report.usable)
    assert content["summary"]["missing"] == 1
    by_name = {entry["name"]: entry for entry in content["files"]}
    assert by_name["held.mp4"]["problems"][0]["kind"] == "short"
    assert by_name["empty.mp4"]["usable"] is False
    kept = restrict(collection, path)
    assert {record.name for record in kept.records} == set(report.usable)
    assert kept.labels == collection.labels
    assert len(kept.missing) == 12 - len(report.usable)
    content["usable"] = ["good.mp4"]
    path.write_text(json.dumps(content))
    assert [record.name for record in restrict(collection, path).records] == ["good.mp4"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 2, "usable": []}',
        '{"format": 1, "usable": [1]}',
        "[" * 99999,
    ],
)
def test_other_files_are_no_manifests(collection, tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match="is no manifest of format 1"):
        restrict(collection, path)


def test_a_manifest_of_another_root_is_refused(report, collection, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"format": 1, "usable": ["elsewhere.mp4"]}')
    with pytest.raises(DatasetError, match="lists no training file"):
        restrict(collection, path)
    with pytest.raises(DatasetError, match="is no manifest"):
        restrict(collection, tmp_path / "absent.json")
    with pytest.raises(DatasetError, match="cannot be written"):
        report.write(tmp_path / "absent" / "manifest.json")


def test_one_video_in_two_splits_is_a_leak(tmp_path):
    write_clip(tmp_path / "AVE" / "twice.mp4")
    write_clip(tmp_path / "AVE" / "once.mp4", seed=1)
    rows = {"train": "a&twice&good&0&1", "val": "a&once&good&0&1", "test": "a&twice&good&1&2"}
    (tmp_path / "Annotations.txt").write_text("\n".join(rows.values()))
    for name, row in rows.items():
        (tmp_path / f"{name}Set.txt").write_text(row)
    report = check(read(DataConfig(name="ave", root=str(tmp_path))), workers=0)
    assert kinds(report) == {"AVE/twice.mp4": {"leak"}, "AVE/once.mp4": set()}
    assert report.files[0].splits == ("train", "test")
    assert report.files[0].problems[0].text == "the file is in train and test"
    assert len(report.warnings) == 1


def test_unpacked_clips_are_checked_picture_by_picture(tmp_path):
    records = []
    for number, name in enumerate(("good", "bad", "mute", "blind", "gone", "dead")):
        frames = tmp_path / "frames" / name
        frames.mkdir(parents=True)
        audio = tmp_path / f"{name}.wav"
        if name != "blind":
            for picture in range(4):
                image = Image.new("RGB", (20, 10), (number * 20, picture, 0))
                image.save(frames / f"{picture + 1:04d}.jpg")
        wavfile.write(audio, 8000, np.full(16000, number, dtype=np.int16))
        records.append(Record(name, FrameFolder(frames, audio), (Event("a", 0.0, 2.0),)))
    (tmp_path / "frames" / "bad" / "0003.jpg").write_bytes(b"x")
    (tmp_path / "mute.wav").write_bytes(b"x")
    (tmp_path / "gone.wav").unlink()
    (tmp_path / "dead.wav").write_bytes(b"")
    for path in (tmp_path / "frames" / "dead").iterdir():
        path.write_bytes(b"y")
    report = check(Collection("ave", tmp_path, ("a",), {"train": tuple(records)}), workers=0)
    assert kinds(report) == {
        "frames/good": set(),
        "frames/bad": {"damaged"},
        "frames/mute": {"no_audio"},
        "frames/blind": {"no_video"},
        "frames/gone": {"missing"},
        "frames/dead": {"unreadable"},
    }
    good = report.files[0]
    assert (good.width, good.height, good.duration, good.sample_rate) == (20, 10, 2.0, 8000)
    assert report.usable == ("frames/good", "frames/bad", "frames/mute", "frames/blind")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (Path.unlink, "holds 4 pictures for its 5 seconds (0001.jpg, 0002.jpg, 0004.jpg, 0005.jpg)"),
        (lambda path: path.write_bytes(b"x"), "1 of its 5 pictures do not decode, first 0003.jpg"),
        (
            lambda path: shutil.rmtree(path.parent) or path.parent.mkdir(),
            "holds 0 pictures for its 5 seconds",
        ),
    ],
)
def test_a_clip_of_one_picture_a_second_needs_all_of_them(tmp_path, spoil, problem):
    folder = unpacked(tmp_path, count=5, seconds=5)
    collection = Collection("avsbench_s4", tmp_path, ("a",), {"train": (Record("a", folder, ()),)})
    assert kinds(check(collection, workers=0)) == {"frames": set()}
    spoil(folder.frames / "0003.jpg")
    (facts,) = check(collection, workers=0).files
    assert not facts.usable
    assert [(one.kind, one.text) for one in facts.problems] == [("unreadable", problem)]


def test_real_files_are_survived(media_dir):
    paths = sorted(path for path in media_dir.rglob("*") if path.is_file() and path.suffix != ".md")
    records = tuple(Record(path.name, path, ()) for path in paths)
    report = check(Collection("folder", media_dir, (), {"train": records}), workers=0)
    assert len(report.files) == len(paths) > 0
    for facts, path in zip(report.files, paths, strict=True):
        assert facts.size_bytes == path.stat().st_size
        assert facts.usable == (facts.duration is not None)
        assert facts.usable or facts.problems
        if facts.usable:
            assert facts.video_codec or facts.audio_codec
    if empty := [facts for facts in report.files if not facts.size_bytes]:
        assert not any(facts.usable for facts in empty)
    json.dumps([table.rows for table in report.tables()])


def test_masks_that_cannot_be_used_are_remarks(tmp_path):
    write_clip(tmp_path / "a.mp4")
    names = {"good": (48, 32), "small": (24, 16), "square": (32, 32), "torn": (48, 32)}
    for name, size in names.items():
        Image.new("L", size, 255).save(tmp_path / f"{name}.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:40])

    def problems(*files: str | None) -> dict[str, str]:
        paths = tuple(None if file is None else tmp_path / f"{file}.png" for file in files)
        record = Record("a", tmp_path / "a.mp4", (Event("hum"),), masks=MaskFiles(paths))
        report = check(Collection("csv", tmp_path, ("hum",), {"train": (record,)}), workers=0)
        assert report.usable == ("a.mp4",)
        return {problem.kind: problem.text for problem in report.files[0].problems}

    assert problems("good", "small", None) == {}
    assert problems(None, None) == {"empty": "1 of its clips have no answer and no mask"}
    bad = problems("good", "absent", "torn", "square")
    assert bad.keys() == {"mask"}
    assert bad["mask"].startswith("3 of 4 masks cannot be used: ")
    assert "absent.png is not there" in bad["mask"]


def test_questions_about_one_video_are_one_file_with_many_clips(tmp_path):
    write_clip(tmp_path / "a.mp4")
    answers = ("two", "yes", "two", "")
    records = tuple(
        Record(f"a/{k}", tmp_path / "a.mp4", (), question=Question(("How",), answer))
        for k, answer in enumerate(answers)
    )
    report = check(Collection("music_avqa", tmp_path, ("two", "yes"), {"train": records}), workers=0)
    assert [facts.name for facts in report.files] == ["a.mp4"]
    assert kinds(report) == {"a.mp4": {"empty"}}
    assert report.files[0].problems[0].text == "1 of its clips have no answer and no mask"
    assert report.clips_per_label == {"train": {"two": 2, "yes": 1, "background": 1}}
    assert report.clips_per_split == {"train": (4, 4)}


def test_unpacked_clips_whose_pictures_share_a_folder_are_told_apart(tmp_path):
    records = []
    for name in ("one", "two"):
        for number in range(3):
            picture = tmp_path / "frames" / f"frame_{number}" / f"{name}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (90 * number, len(records), 0)).save(picture)
        audio = tmp_path / "audio" / f"{name}.wav"
        audio.parent.mkdir(exist_ok=True)
        wavfile.write(audio, 16000, np.full(16000, len(records), dtype=np.int16))
        source = FrameFolder(tmp_path / "frames", audio, f"frame_*/{name}.jpg")
        records.append(Record(name, source, (Event("a"),)))
    (tmp_path / "frames" / "frame_1" / "two.jpg").write_bytes(b"x")
    collection = Collection("audioset", tmp_path, ("a",), {"train": tuple(records)})
    report = check(collection, workers=0)
    assert kinds(report) == {"audio/one.wav": set(), "audio/two.wav": {"damaged"}}
    report.write(tmp_path / "manifest.json")
    assert len(restrict(collection, tmp_path / "manifest.json").records) == 2
