import csv
import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avtune.datasets.bandstand import CLASSES, BandstandError, Difficulty, make_program, render_bandstand
from avtune.datasets.bandstand.render import prepare
from avtune.datasets.bandstand.scene import SAMPLE_RATE, SECONDS
from avtune.media import Clip, decode

CLIPS = 80
SIZE = 64
MIDDLES = [second + 0.5 for second in range(SECONDS)]


@pytest.fixture(scope="session")
def bandstand_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bandstand") / "set"
    steps: list[tuple[int, int]] = []
    summary = render_bandstand(root, CLIPS, seed=4, size=SIZE, progress=lambda *step: steps.append(step))
    assert steps == [(done, CLIPS) for done in range(1, CLIPS + 1)]
    assert (summary.clips, summary.rendered) == (CLIPS, CLIPS)
    assert summary.splits == {"train": 56, "validation": 8, "test": 16}
    return root


@pytest.fixture(scope="session")
def bandstand_truth(bandstand_root: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((bandstand_root / "truth").iterdir())]


@pytest.fixture(scope="session")
def bandstand_clips(bandstand_root: Path, bandstand_truth: list[dict]) -> list[Clip]:
    return [decode(bandstand_root / "AVE" / f"{truth['name']}.mp4", MIDDLES) for truth in bandstand_truth]


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_layout_is_that_of_ave_and_lists_every_clip_once(
    bandstand_root: Path, bandstand_truth: list[dict]
) -> None:
    header, *rows = (bandstand_root / "Annotations.txt").read_text().splitlines()
    assert header == "Category&VideoID&Quality&StartTime&EndTime"
    split_rows = {
        name: (bandstand_root / f"{file}Set.txt").read_text().splitlines()
        for name, file in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    assert sorted(chain(*split_rows.values())) == sorted(rows)
    for truth, row in zip(bandstand_truth, rows, strict=True):
        category, name, quality, start, end = row.split("&")
        assert [category, name, quality] == [truth["label"], truth["name"], "good"]
        assert row in split_rows[truth["split"]]
        inside = range(int(start), int(end))
        assert truth["labels"] == [category if t in inside else "background" for t in range(SECONDS)]
        assert (bandstand_root / "AVE" / f"{name}.mp4").is_file()


def test_tables_beside_the_clips_agree_with_the_truth(
    bandstand_root: Path, bandstand_truth: list[dict]
) -> None:
    tables = {
        name: list(csv.DictReader((bandstand_root / f"{name}.csv").open()))
        for name in ("events", "heard", "seen", "classes")
    }
    assert [row["file"] for row in tables["events"]] == [f"AVE/{t['name']}.mp4" for t in bandstand_truth]
    for truth in bandstand_truth:
        file = f"AVE/{truth['name']}.mp4"
        for sense in ("heard", "seen"):
            rows = [row for row in tables[sense] if row["file"] == file]
            for second in range(SECONDS):
                present = {row["label"] for row in rows if int(row["start"]) <= second < int(row["end"])}
                assert sorted(present) == truth[sense][second]
        listed = [row["label"] for row in tables["classes"] if row["file"] == file]
        assert listed == ([truth["label"]] if truth["event"][0] < truth["event"][1] else [])
    retrieval = json.loads((bandstand_root / "retrieval.json").read_text())
    by_name = {truth["name"]: truth for truth in bandstand_truth}
    for split, content in retrieval.items():
        assert sorted(chain(*content["groups"].values())) == sorted(content["pairs"])
        assert all(by_name[name]["split"] == split for name in content["pairs"])
        assert all(by_name[name]["label"] == label for label in CLASSES for name in content["groups"][label])


def test_masks_are_the_pixels_of_what_is_seen_and_sounds(
    bandstand_root: Path, bandstand_truth: list[dict]
) -> None:
    sounding_seconds = twins = 0
    for truth in bandstand_truth:
        strip = np.asarray(Image.open(bandstand_root / "instances" / f"{truth['name']}.png"))
        for second, owner in enumerate(strip.reshape(SECONDS, SIZE, SIZE)):
            mask = np.asarray(Image.open(bandstand_root / "masks" / truth["name"] / f"{second}.png"))
            sounding = truth["sounding"][second]
            assert np.array_equal(mask, 255 * np.isin(owner, [number + 1 for number in sounding]))
            present = [i for i in truth["instruments"] if i["seen"][0] <= second < i["seen"][1]]
            assert set(np.unique(owner)) - {0} == {i["number"] + 1 for i in present}
            assert bool(mask.any()) == bool(sounding) == (truth["labels"][second] != "background")
            sounding_seconds += bool(sounding)
            twins += len(sounding) == 1 and [i["label"] for i in present].count(truth["label"]) == 2
    assert sounding_seconds > 300
    assert twins > 0


def test_decoded_frames_and_sound_are_what_the_program_says(
    bandstand_truth: list[dict], bandstand_clips: list[Clip]
) -> None:
    for truth, clip in list(zip(bandstand_truth, bandstand_clips, strict=True))[:6]:
        rendering = prepare(make_program(4, truth["index"]), Difficulty(), SIZE, 10)
        for second, frame in enumerate(clip.frames):
            drawn = rendering.frame(second + 0.5)
            assert np.abs(drawn.astype(float) - np.asarray(frame)).mean() < 8
        sent, got = rendering.waveform, clip.waveform[: len(rendering.waveform)]
        spectrum = np.fft.rfft(sent[: len(got)]).conj() * np.fft.rfft(got)
        assert abs(np.argmax(np.fft.irfft(spectrum))) <= 1


def test_bytes_depend_on_the_seed_alone(bandstand_root: Path, tmp_path: Path) -> None:
    render_bandstand(tmp_path / "again", 3, seed=4, size=SIZE, workers=1)
    render_bandstand(tmp_path / "other", 3, seed=5, size=SIZE, workers=1)
    large, small, other = (
        contents(root) for root in (bandstand_root, tmp_path / "again", tmp_path / "other")
    )
    clips = [name for name in small if name.startswith(("AVE", "truth", "masks", "instances"))]
    assert len(clips) == 3 * (1 + 1 + SECONDS + 1)
    assert all(small[name] == large[name] for name in clips)
    assert not any(small[name] == other[name] for name in clips if name.startswith("AVE"))


def test_an_interrupted_set_is_continued_and_a_larger_one_extends_it(tmp_path: Path) -> None:
    def interrupt(done: int, clips: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_bandstand(tmp_path / "set", 4, size=32, rate=5, workers=1, progress=interrupt)
    assert json.loads((tmp_path / "set" / "bandstand.json").read_text())["complete"] is False
    (tmp_path / "set" / "AVE" / "clip000002.mp4").write_bytes(b"cut off")
    steps: list[tuple[int, int]] = []
    summary = render_bandstand(
        tmp_path / "set", 4, size=32, rate=5, workers=1, progress=lambda *step: steps.append(step)
    )
    assert summary.rendered == 2
    assert steps == [(2, 4), (3, 4), (4, 4)]
    render_bandstand(tmp_path / "whole", 4, size=32, rate=5, workers=1)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert render_bandstand(tmp_path / "set", 5, size=32, rate=5, workers=1).rendered == 1
    (tmp_path / "set" / "AVE" / "clip000001.mp4").unlink()
    assert render_bandstand(tmp_path / "set", 5, size=32, rate=5, workers=1).rendered == 1
    with pytest.raises(BandstandError, match="holds 5 clips"):
        render_bandstand(tmp_path / "set", 4, size=32, rate=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "clips 0"),
        ({"seed": -1}, "seed -1"),
        ({"workers": 0}, "workers 0"),
        ({"size": 33}, "size 33"),
        ({"size": 16}, "size 16"),
        ({"rate": 0.5}, "rate 0.5"),
        ({"rate": 10.03}, "rate 10.03"),
        ({"split_shares": (0.5, 0.1, 0.1)}, "split_shares"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(tmp_path: Path, options: dict, message: str) -> None:
    arguments = {"clips": 1} | options
    with pytest.raises(BandstandError, match=message) as caught:
        render_bandstand(tmp_path / "set", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_folders_of_others_and_other_settings_are_refused_in_one_line(
    bandstand_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(BandstandError, match="holds other files"):
        render_bandstand(tmp_path / "mine", 1)
    with pytest.raises(BandstandError, match="seed 4 instead of 5"):
        render_bandstand(bandstand_root, CLIPS, seed=5, size=SIZE)
    with pytest.raises(BandstandError, match="size 64 instead of 160") as caught:
        render_bandstand(bandstand_root, CLIPS, seed=4)
    assert "\n" not in str(caught.value)
    shutil.copytree(
        bandstand_root, tmp_path / "damaged", ignore=lambda *_: ["AVE", "masks", "truth", "instances"]
    )
    (tmp_path / "damaged" / "bandstand.json").write_text('{"settings":')
    with pytest.raises(BandstandError, match="is damaged"):
        render_bandstand(tmp_path / "damaged", CLIPS, seed=4, size=SIZE)
    (tmp_path / "file").write_text("")
    with pytest.raises(BandstandError, match="cannot be made"):
        render_bandstand(tmp_path / "file" / "set", 1)


def test_file_size_duration_and_lengths_are_the_same_for_all_clips(
    bandstand_root: Path, bandstand_clips: list[Clip]
) -> None:
    assert len({file.stat().st_size for file in (bandstand_root / "AVE").iterdir()}) == 1
    assert len({clip.duration for clip in bandstand_clips}) == 1
    assert len({len(clip.waveform) for clip in bandstand_clips}) == 1
    assert not any(clip.damage.any for clip in bandstand_clips)


def test_loudness_does_not_tell_the_class(bandstand_truth: list[dict], bandstand_clips: list[Clip]) -> None:
    levels: dict[str, list[float]] = {label: [] for label in CLASSES}
    for truth, clip in zip(bandstand_truth, bandstand_clips, strict=True):
        for sound in truth["sounds"]:
            alone = [t for t in range(*sound["heard"]) if truth["heard"][t] == [sound["label"]]]
            if len(alone) == sound["heard"][1] - sound["heard"][0] > 1:
                part = clip.waveform[alone[0] * SAMPLE_RATE : (alone[-1] + 1) * SAMPLE_RATE]
                levels[sound["label"]].append(10 * np.log10(np.mean(part**2)) - sound["level_db"])
    # A drum's or a raindrop's peaks are limited, and boundaries lie up to 0.1 s off the whole second.
    for label, found in levels.items():
        assert found, label
        assert abs(np.mean(found)) < 1.0, label


def features(clips: list[Clip]) -> tuple[torch.Tensor, torch.Tensor]:
    """Small pictures and mean log band energies of every second, (clips * 10, features) each."""
    pictures, bands = [], []
    for clip in clips:
        waveform = np.pad(clip.waveform, (0, SAMPLE_RATE))
        for second in range(SECONDS):
            picture = Image.fromarray(np.asarray(clip.frames[second])).resize((20, 20), Image.Resampling.BOX)
            pictures.append(np.asarray(picture, np.float32).reshape(-1) / 255)
            part = waveform[second * SAMPLE_RATE : (second + 1) * SAMPLE_RATE].reshape(20, -1)
            power = np.abs(np.fft.rfft(part * np.hanning(part.shape[1]))) ** 2
            edges = np.unique(np.geomspace(2, power.shape[1], 40).astype(int))
            energy = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-5)
            bands.append(np.concatenate([energy.mean(0), energy.std(0)]))
    return torch.tensor(np.array(pictures)), torch.tensor(np.array(bands), dtype=torch.float32)


def logistic_regression(inputs: torch.Tensor, targets: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Predictions of a linear classifier fitted to the training rows, for all rows."""
    inputs = (inputs - inputs[training].mean(0)) / (inputs[training].std(0) + 1e-3)
    weights = torch.zeros(inputs.shape[1] + 1, int(targets.max()) + 1, requires_grad=True)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    optimizer = torch.optim.Adam([weights], 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs[training] @ weights, targets[training])
        (loss + 1e-3 * weights.square().sum()).backward()
        optimizer.step()
    return (inputs @ weights).argmax(1)


def test_classifiers_of_one_sense_stay_far_below_the_truth_though_they_do_learn(
    bandstand_truth: list[dict], bandstand_clips: list[Clip]
) -> None:
    names = [*CLASSES, "background"]
    events = torch.tensor([names.index(label) for truth in bandstand_truth for label in truth["labels"]])
    training = torch.tensor([truth["split"] != "test" for truth in bandstand_truth for _ in range(SECONDS)])
    majority = (events[training] == len(CLASSES)).float().mean().item()
    scores = {}
    for sense, inputs in zip(("seen", "heard"), features(bandstand_clips), strict=True):
        scores[sense] = (
            (logistic_regression(inputs, events, training) == events)[~training].float().mean().item()
        )
        single = torch.tensor([len(here) == 1 for truth in bandstand_truth for here in truth[sense]])
        perceived = torch.tensor(
            [
                names.index(here[0]) if len(here) == 1 else 0
                for truth in bandstand_truth
                for here in truth[sense]
            ]
        )
        named = logistic_regression(inputs, perceived, training & single) == perceived
        # The probe is no straw man: on the clips it was fitted to, it knows what it sees and hears.
        assert named[training & single].float().mean() > 0.9
        if sense == "heard":
            assert named[~training & single].float().mean() > 0.8
    assert max(scores.values()) < 0.65
    assert majority > 0.4
