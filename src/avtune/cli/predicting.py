"""``avtune predict``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avtune.cli.console import console, listing, new_progress
from avtune.datasets.records import VIDEO_SUFFIXES
from avtune.errors import AvtuneError
from avtune.media import MediaError
from avtune.model import AudioVisualModel, Prediction, load
from avtune.report import TimelineClip, write_prediction_csv, write_prediction_json, write_prediction_page


def predict(options: argparse.Namespace) -> int:
    """Predict files; one that cannot be read is reported and the others go on."""
    folder = Path(options.folder)
    model = load(folder, device="auto")
    files = _files(options.files)
    out = Path(options.out) if options.out else folder / "predictions"
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with new_progress() as progress:
        bar = progress.add_task("predicting", total=len(files), note="")
        for file in files:
            progress.update(bar, note=file.name)
            try:
                prediction = model.predict(file)
            except MediaError as error:
                failed += 1
                progress.console.print(f"avtune: {error}", highlight=False, markup=False)
            else:
                _show(prediction, _write(model, folder, prediction, out, _stem(file, files)))
            progress.advance(bar)
    if failed and failed == len(files):
        return 1
    if failed:
        print(f"avtune: {failed} of {len(files)} files could not be read", file=sys.stderr)
    return 0


def _files(named: list[str]) -> list[Path]:
    files: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
        else:
            files.append(path)
    if not files:
        raise AvtuneError(
            f"{named[0]}: no video in it; give a file or a folder of files such as .mp4 or .mov"
        )
    return files


def _stem(file: Path, files: list[Path]) -> str:
    # Two files of one name, from two folders or in two formats, must not overwrite each other's results.
    twins = [other for other in files if other.stem == file.stem]
    return file.stem if len(twins) == 1 else f"{file.stem}-{twins.index(file) + 1}"


def _write(model: AudioVisualModel, run: Path, prediction: Prediction, out: Path, stem: str) -> Path:
    clip = TimelineClip(
        name=prediction.path.name,
        segment_seconds=prediction.segment_seconds,
        labels=prediction.labels,
        probabilities=prediction.probabilities,
        predicted=prediction.classes,
        video=prediction.path,
        notes=prediction.notes,
    )
    page = out / f"{stem}.html"
    write_prediction_json(out / f"{stem}.json", clip)
    write_prediction_csv(out / f"{stem}.csv", clip)
    encoder = model.config.encoder
    write_prediction_page(page, clip, {"Run": str(run), "Tower": encoder.tower, "Method": encoder.fusion})
    return page


def _show(prediction: Prediction, page: Path) -> None:
    console.print(f"[bold]{prediction.path.name}[/bold]", highlight=False)
    rows = [
        [f"{event.start:7.1f}", f"{event.end:7.1f}", event.label, f"{100 * event.probability:.0f} %"]
        for event in prediction.timeline
    ]
    console.print(listing(["from s", "to s", "event", "probability"], rows) if rows else "  no event")
    for note in prediction.notes:
        console.print(f"  note: {note}", highlight=False, markup=False)
    console.print(f"  page: {page}", highlight=False, markup=False)
