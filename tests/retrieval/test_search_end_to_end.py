"""Index, search and map as people type them, on real files, with the bundled backbone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import avtune
from avtune.cli import main
from avtune.config import AudioInput, InputConfig, PretrainingConfig
from avtune.media import decode, write_video
from avtune.pretrain.saved import build_model, save_pretrained
from avtune.runs.embedders import load_embedder
from avtune.transforms import Preprocessing
from media.media_builders import tone, write_media

COLOURS = ((210, 40, 40), (40, 190, 60), (50, 60, 220), (220, 200, 40), (120, 30, 140), (90, 90, 90))
HERTZ = (220.0, 2500.0, 700.0, 5000.0, 1200.0, 350.0)
RATE = 4


def pictures(places: list[int]) -> list[np.ndarray]:
    """Four seconds of each place: its colour, and a square that wanders at its height."""
    found = []
    for place in places:
        for k in range(4 * RATE):
            picture = np.full((64, 64, 3), COLOURS[place], np.uint8)
            picture[2 + 10 * place :][:10, 2 * k :][:, :12] = 255
            found.append(picture)
    return found


def sound(places: list[int]) -> np.ndarray:
    return np.concatenate([tone(4, 16000, HERTZ[place]) for place in places])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "red.mp4", pictures([0]), RATE, sound([0]))
    (root / "deep").mkdir()
    write_video(root / "deep" / "green.mp4", pictures([1]), RATE, sound([1]))
    write_video(root / "long.mp4", pictures([4, 5, 2, 5, 4]), RATE, sound([4, 5, 2, 5, 4]))
    write_video(root / "silent.mp4", pictures([3]), RATE, None)
    write_media(
        root / "sound.wav", sound=sound([3]), audio_codec="pcm_s16le", sample_rate=16000, layout="mono"
    )
    (root / "damaged.mp4").write_bytes((root / "red.mp4").read_bytes()[:2000])
    return root


@pytest.fixture(scope="module")
def retrieval_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("retrieval") / "run"
    # Which windows are alike enough to be one place depends on the head's weights.
    torch.manual_seed(0)
    avtune.create_model("nano", labels=["a", "b"], task="retrieval", segments=4, direction="none").save(run)
    return run


@pytest.fixture(scope="module")
def pretraining_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pretraining") / "run"
    audio = AudioInput(preset="cav_mae", mels=32, steps=96, shift_ms=40.0, seconds=4.0, placement="clip")
    preprocessing = Preprocessing.from_config(
        InputConfig(segments=4, audio=audio), size=64, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    config = PretrainingConfig("cav_mae", "nano", options={"decoder_width": 32, "decoder_depth": 1}, depth=3)
    torch.manual_seed(0)
    model = build_model(config, preprocessing, pretrained=True)
    save_pretrained(run, model.state_dict(), config, preprocessing)
    return run


@pytest.fixture(scope="module", params=["retrieval", "pretraining"])
def index(request: pytest.FixtureRequest, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    run = request.getfixturevalue(f"{request.param}_run")
    assert main(["index", str(videos), "--run", str(run), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def few(retrieval_run: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three of the videos, and their index."""
    root = tmp_path_factory.mktemp("few")
    folder = root / "a & <b>"
    folder.mkdir()
    for name in ("red.mp4", "long.mp4", "damaged.mp4"):
        shutil.copy(videos / name, folder)
    assert main(["index", str(folder), "--run", str(retrieval_run), "--out", str(root / "index")]) == 0
    return folder, root / "index"


def searched(index: Path, query: Path, out: Path, *words: str) -> list[dict[str, object]]:
    assert main(["search", str(query), "--index", str(index), "--json", str(out / "found.json"), *words]) == 0
    found: list[dict[str, object]] = json.loads((out / "found.json").read_text())["found"]
    return found


def test_a_file_finds_itself_by_its_sound_and_by_a_frame(index: Path, videos: Path, tmp_path: Path) -> None:
    name = "deep/green.mp4"
    clip = decode(videos / name, [1.6])
    write_media(
        tmp_path / "sound.wav", sound=clip.waveform, audio_codec="pcm_s16le", sample_rate=16000, layout="mono"
    )
    Image.fromarray(clip.frames[0]).save(tmp_path / "frame.png")
    assert searched(index, tmp_path / "sound.wav", tmp_path)[0]["file"] == name
    assert searched(index, tmp_path / "frame.png", tmp_path)[0]["file"] == name
    whole = searched(index, videos / name, tmp_path)[0]
    assert whole["file"] == name
    assert whole["score"] == pytest.approx(1.0, abs=1e-3)


def test_the_time_within_a_long_video_is_found(index: Path, videos: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "blue.mp4", pictures([2]), RATE, sound([2]))
    for by in ("sound", "picture"):
        best = searched(index, tmp_path / "blue.mp4", tmp_path, "--by", by)[0]
        assert best["file"] == "long.mp4"
        assert best["at"] == 8.0
        assert best["start"] <= 8.0
        assert best["end"] >= 12.0


def test_files_that_lack_a_stream_are_found_by_the_other(index: Path, videos: Path, tmp_path: Path) -> None:
    assert searched(index, videos / "sound.wav", tmp_path)[0]["file"] == "sound.wav"
    best = searched(index, videos / "silent.mp4", tmp_path)[0]
    assert best["file"] == "silent.mp4"
    assert "no sound" in best["notes"]
    across = searched(index, videos / "red.mp4", tmp_path, "--by", "sound", "--in", "picture", "--top", "50")
    assert {place["file"] for place in across} == {"red.mp4", "deep/green.mp4", "long.mp4", "silent.mp4"}


def test_the_terminal_tells_what_is_damaged_and_what_was_found(
    few: tuple[Path, Path], retrieval_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(few[0], folder)
    words = ["index", str(folder), "--run", str(retrieval_run), "--out", str(tmp_path / "index")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"1 files could not be read .*:\n  damaged.mp4: nothing of its video and audio", printed)
    assert "2 files read, 0 unchanged, 0 gone" in printed
    (folder / "red.mp4").unlink()
    assert main(words) == 0
    assert "0 files read, 2 unchanged, 1 gone" in capsys.readouterr().out
    assert main(["search", str(folder / "long.mp4"), "--index", str(tmp_path / "index"), "--top", "1"]) == 0
    assert re.search(r"1 +long.mp4 +0:\d\d +0:\d\d +1.000", capsys.readouterr().out)


def test_the_page_holds_players_that_begin_at_the_found_second(
    few: tuple[Path, Path], tmp_path: Path
) -> None:
    write_video(tmp_path / "blue.mp4", pictures([2]), RATE, sound([2]))
    page = tmp_path / "results.html"
    words = ["--index", str(few[1]), "--page", str(page), "--top", "2"]
    assert main(["search", str(tmp_path / "blue.mp4"), *words]) == 0
    text = page.read_text(encoding="utf-8")
    # The query and two places.
    assert text.count("<article") == text.count("<video") == 3
    assert 'data-time="8">Play from 0:08<' in text
    assert "a &amp; &lt;b&gt;" in text
    assert "<b>." not in text
    assert str(tmp_path) not in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_remarks_on_the_query_and_on_what_was_found_are_told(
    videos: Path, retrieval_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, index, page = tmp_path / "videos", tmp_path / "index", tmp_path / "page.html"
    folder.mkdir()
    shutil.copy(videos / "silent.mp4", folder)
    assert main(["index", str(folder), "--run", str(retrieval_run), "--out", str(index)]) == 0
    content = bytearray((videos / "red.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / "bad.mp4").write_bytes(content)
    capsys.readouterr()
    words = ["--index", str(index), "--json", str(tmp_path / "found.json"), "--page", str(page)]
    assert main(["search", str(tmp_path / "bad.mp4"), *words]) == 0
    notes = json.loads((tmp_path / "found.json").read_text())["notes"]
    assert any(note.startswith("damaged") for note in notes)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the query: {'; '.join(notes)}" in printed
    assert "silent.mp4: no sound" in printed
    for note in (*notes, "no sound"):
        assert f"<li>{note}</li>" in page.read_text(encoding="utf-8")


def test_a_map_of_too_few_files_is_not_drawn(
    few: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.png"
    assert main(["map", "--index", str(few[1]), "--out", str(out)]) == 1
    assert "needs 4 files with sound, pictures and a category, here are 2" in capsys.readouterr().err
    assert not out.exists()


def test_errors_are_one_line_with_the_mend(
    few: tuple[Path, Path],
    retrieval_run: Path,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, index = few
    other = tmp_path / "other"
    avtune.create_model("nano", labels=["a", "b"], task="retrieval", segments=3, direction="none").save(other)
    avtune.create_model("nano", labels=["a", "b"]).save(tmp_path / "localization")
    query, where = str(videos / "red.mp4"), ["--index", str(index)]
    for words, told in (
        (["search", query, "--index", str(tmp_path)], "no index; make one with"),
        (["search", query, *where, "--run", str(other)], "of another model than"),
        (
            ["search", query, *where, "--run", str(tmp_path / "gone")],
            "is not there; say where it is with --run",
        ),
        (["search", query, *where, "--top", "0"], "ask for 1 result or more"),
        (
            ["search", str(videos / "silent.mp4"), *where, "--by", "sound"],
            "the query has no sound; search by picture",
        ),
        (
            ["search", str(videos / "damaged.mp4"), *where],
            "nothing of its video and audio can be decoded; copy",
        ),
        (["index", str(folder), "--run", str(other), "--out", str(index)], "of another model, that of"),
        (["index", str(videos), "--run", str(tmp_path / "localization")], "gives no vectors to search with"),
        (
            ["index", str(videos / "deep"), "--run", str(retrieval_run), "--out", str(index)],
            "name another --out",
        ),
        (
            ["index", str(folder), "--run", str(folder)],
            "so this is no finished run; give the folder of one of `avtune pretrain`, or of `avtune train`",
        ),
        (
            ["index", str(folder), "--run", str(retrieval_run), "--out", query],
            "is a file, not a folder; name another place",
        ),
        (["search", query, *where, "--json", str(tmp_path)], "is a folder; name a file"),
        (["search", query, *where, "--page", str(tmp_path)], "is a folder; name a file"),
        (
            ["map", *where, "--out", str(tmp_path / "new" / "map.jpg")],
            "the map is a PNG; let its name end with .png",
        ),
    ):
        assert main(words) == 1, words
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("avtune: ")
        assert told in error[-1]
    assert not (tmp_path / "new").exists()


def test_a_fingerprint_names_the_weights_not_their_place(retrieval_run: Path, tmp_path: Path) -> None:
    shutil.copytree(retrieval_run, tmp_path / "moved")
    assert load_embedder(tmp_path / "moved").fingerprint == load_embedder(retrieval_run).fingerprint
