"""Pictures of the documentation, made from a run that `avtune try` wrote.

    python tools/docs_pictures.py try/run              # docs/pictures/timeline.png
    python tools/docs_pictures.py try/run --page       # also report.png; needs chromium

The clip shown is chosen without a look at its prediction: the first test clip whose event lasts 3 to 7 seconds.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from avtune.datasets import Record, existing, read
from avtune.media import decode
from avtune.model import AudioVisualModel, load
from avtune.report import palette
from avtune.transforms import log_mel

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHORTEST, LONGEST = 3, 7
BACKGROUND_INK = "#6b6860"


def chosen(run: Path) -> tuple[AudioVisualModel, Record]:
    """The run's model, and the clip to show."""
    model = load(run)
    records = existing(read(model.config.data)).splits["test"]
    for record in records:
        if sum(SHORTEST <= event.end - event.start <= LONGEST for event in record.events):
            return model, record
    raise SystemExit(f"{run}: no test clip has an event of {SHORTEST} to {LONGEST} seconds")


def draw(model: AudioVisualModel, record: Record, path: Path) -> None:
    """Frames, spectrogram, true and predicted timeline on one time axis."""
    file = record.files[0]
    prediction = model.predict(file)
    true = model.task.target(record).numpy()
    seconds = model.preprocessing.segment_seconds
    count = min(len(true), len(prediction.classes))
    clip = decode(file, [(t + 0.5) * seconds for t in range(count)])
    assert clip.frames is not None
    assert clip.waveform is not None

    figure = Figure(figsize=(10, 3.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    seen, heard, rows = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 0.85, 0.8])
    figure.subplots_adjust(left=0.085, right=0.985, top=0.985, bottom=0.13, hspace=0.12)
    for t, frame in enumerate(clip.frames):
        height, width = frame.shape[:2]
        share = height / width * seconds
        seen.imshow(frame, extent=(t * seconds, (t + 1) * seconds, 0, share), aspect="auto")
    seen.set(ylim=(0, share), yticks=[share / 2], yticklabels=["seen"])
    sound = log_mel(torch.from_numpy(clip.waveform), mels=96).numpy().T
    loudest = float(np.quantile(sound, 0.999))
    heard.imshow(
        sound, extent=(0, clip.duration, 0, 1), aspect="auto", origin="lower", cmap="magma",
        vmin=loudest - 13, vmax=loudest,
    )  # fmt: skip
    heard.set(yticks=[0.5], yticklabels=["heard"])
    _blocks(rows, true[:count], seconds, model.class_names, 1)
    _blocks(rows, prediction.classes[:count], seconds, model.class_names, 0)
    rows.set(ylim=(-0.5, 1.5), yticks=[1, 0], yticklabels=["true", "predicted"], xlabel="seconds")
    rows.set(xlim=(0, count * seconds), xticks=range(0, count + 1))
    for axes in (seen, heard, rows):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, metadata={"Software": None})
    write_small(Image.open(picture), path)


def _blocks(axes: Any, classes: np.ndarray, seconds: float, names: tuple[str, ...], row: int) -> None:
    bounds = [0, *(int(k) + 1 for k in np.flatnonzero(np.diff(classes))), len(classes)]
    for start, end in pairwise(bounds):
        label = int(classes[start])
        background = label == len(names) - 1
        fill = palette.BACKGROUND_LIGHT if background else palette.LIGHT[label % len(palette.LIGHT)]
        text = BACKGROUND_INK if background else palette.ink(fill)
        axes.barh(
            row, (end - start) * seconds, left=start * seconds, height=0.8, color=fill, edgecolor="white"
        )
        if end - start > 1 or not background:
            middle, size = (start + end) / 2 * seconds, 10 if end - start > 1 else 8
            axes.text(middle, row, names[label], ha="center", va="center", color=text, fontsize=size)


def screenshot(page: Path, path: Path) -> None:
    """The top of a page as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium found; install it, or leave --page away")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        options += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        options += ["--window-size=1000,1250", "--virtual-time-budget=4000", f"--screenshot={shot}"]
        subprocess.run(
            [browser, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=120
        )
        write_small(Image.open(shot), path)


def write_small(picture: Image.Image, path: Path) -> None:
    """A PNG of few colours."""
    picture.convert("RGB").quantize(192).save(path, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the documentation's pictures from a run folder.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--page", action="store_true", help="also photograph the run's page (needs chromium)")
    options = parser.parse_args()
    model, record = chosen(options.run)
    draw(model, record, PICTURES / "timeline.png")
    print(f"{record.name}: {PICTURES / 'timeline.png'}")
    if options.page:
        screenshot(options.run / "report.html", PICTURES / "report.png")
        print(PICTURES / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
