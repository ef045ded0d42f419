"""Draw the pictures of ``docs/bandstand.md`` and print the numbers that it quotes."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avtune.datasets.bandstand import CLASSES, Difficulty, make_program, render_bandstand
from avtune.datasets.bandstand.ceilings import single_sense_ceiling
from avtune.datasets.bandstand.render import Rendering, prepare
from avtune.datasets.bandstand.scene import SAMPLE_RATE, SECONDS, Sound, Timbre
from avtune.datasets.bandstand.soundtrack import strain
from avtune.transforms.log_mel import log_mel

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE = 160


def labelled(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A picture with a line of text under it."""
    height, width = picture.shape[:2]
    card = Image.new("RGB", (width, height + 14), "white")
    card.paste(Image.fromarray(picture))
    ImageDraw.Draw(card).text((3, height + 1), text, fill="black")
    return np.asarray(card)


def outlined(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with the border of a mask in red."""
    inside = mask > 0
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            core &= np.roll(inside, shift, axis)
    return np.where((inside & ~core)[..., None], np.uint8([230, 0, 0]), picture)


def draw_clips() -> None:
    """Four clips, every second of each: what is heard, what counts, and the mask of what sounds."""
    rows = []
    for index in (4, 2, 5, 6):
        program = make_program(0, index)
        rendering = prepare(program, Difficulty(), SIZE, 10)
        row = []
        for second in range(SECONDS):
            picture = outlined(rendering.frame(rendering.middle(second)), rendering.mask(second))
            heard = " ".join(sorted(program.heard(second))) or "(silence)"
            event = "  EVENT" if program.event[0] <= second < program.event[1] else ""
            row.append(labelled(picture, heard + event))
        rows.append(np.concatenate(row, 1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.quantize(256).save(PICTURES / "bandstand_clips.png", optimize=True)


def moment_of(rendering: Rendering, *, struck: bool) -> float | None:
    """A time at which the only instrument is, or is not, struck; ``None``: it is always or never."""
    strikes = rendering.strikes.get(0, [])
    for frame in range(10, 90):
        if any(frame / 10 - 0.1 < strike <= frame / 10 for strike in strikes) == struck:
            return frame / 10
    return None


def draw_shapes() -> None:
    """Each class at rest and struck, in looks of its clips."""
    cells: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    index = 0
    while min(len(cells[label]) for label in CLASSES) < 2:
        program = make_program(1, index)
        index += 1
        if len(program.instruments) != 1 or program.instruments[0].seen != (0, SECONDS):
            continue
        label = program.instruments[0].label
        rendering = prepare(program, Difficulty(), SIZE, 10)
        pose = len(cells[label])
        if pose < 2 and (moment := moment_of(rendering, struck=pose == 1)) is not None:
            cells[label].append(labelled(rendering.frame(moment), f"{label}, struck" if pose else label))
    sheet = np.concatenate([np.concatenate([cells[label][pose] for label in CLASSES], 1) for pose in (0, 1)])
    Image.fromarray(sheet).quantize(256).save(PICTURES / "bandstand_shapes.png", optimize=True)


def draw_sounds() -> None:
    """One second of each class at three pitches as a log-mel picture of 64 bands."""
    figure, axes = plt.subplots(3, len(CLASSES), figsize=(14, 4.4), dpi=70)
    for column, label in enumerate(CLASSES):
        for row, pitch in enumerate((0.1, 0.5, 0.9)):
            rng = np.random.default_rng(row)
            sound = Sound(0, label, None, 0.0, 2.0, (0, 2), -23.0, Timbre(pitch, 0.5, 0.5))
            waveform = strain(sound, rng).waveform + 10 ** (-48 / 20) * rng.normal(0, 1, 2 * SAMPLE_RATE)
            picture = log_mel(torch.tensor(waveform[SAMPLE_RATE // 2 :], dtype=torch.float32), mels=64)[:98]
            axes[row, column].imshow(picture.T, origin="lower", aspect="auto", cmap="magma")
            axes[row, column].set(xticks=[], yticks=[])
            if row == 0:
                axes[row, column].set_title(label)
            if column == 0:
                axes[row, column].set_ylabel(("low", "middle", "high")[row])
    figure.tight_layout()
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    picture.quantize(128).save(PICTURES / "bandstand_sounds.png", optimize=True)


def print_numbers(count: int) -> None:
    """The numbers of the documentation: priors and ceilings from programs, time from a rendered set."""
    programs = [make_program(0, index) for index in range(count)]
    share = sum(p.event[1] - p.event[0] for p in programs) / count / SECONDS
    print(f"programs {count}: background {1 - share:.3f}")
    print(f"clips without an event {np.mean([p.event[0] == p.event[1] for p in programs]):.3f}")
    twins = np.mean([len({i.label for i in p.instruments}) < len(p.instruments) for p in programs])
    print(f"clips with two of a kind {twins:.3f}")
    for sense in ("heard", "seen"):
        found = single_sense_ceiling(programs, sense)
        print(f"only {sense}: naming {found.naming:.3f}, best guess from the whole clip {found.guessing:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        render_bandstand(Path(folder) / "set", 40, workers=1)
        sizes = {file.stat().st_size for file in (Path(folder) / "set" / "AVE").iterdir()}
        print(
            f"CPU seconds per clip {(time.process_time() - began) / 40:.3f}, bytes per clip {sorted(sizes)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--programs", type=int, default=40_000, help="programs that the numbers are computed from"
    )
    count = parser.parse_args().programs
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_clips()
    draw_shapes()
    draw_sounds()
    print_numbers(count)


if __name__ == "__main__":
    main()
