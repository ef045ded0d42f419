"""``avtune predict``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape

from avtune.cli.console import console, listing, new_progress
from avtune.datasets.records import VIDEO_SUFFIXES
from avtune.errors import AvtuneError
from avtune.media import MediaError
from avtune.model import AudioVisualModel, load
from avtune.report import write_prediction
from avtune.report.retrieval import write_matches
from avtune.tasks import (
    AnswerPrediction,
    ClassPrediction,
    MaskPrediction,
    ParsingPrediction,
    Prediction,
    RetrievalPrediction,
    TimelinePrediction,
)

SHOWN_CLASSES = 5


def predict(options: argparse.Namespace) -> int:
    """Predict files; one that cannot be read is reported and the others go on."""
    folder = Path(options.folder)
    model = load(folder, device="auto")
    files = _files(options.files)
    out = Path(options.out) if options.out else folder / "predictions"
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    searched: list[RetrievalPrediction] = []
    with new_progress() as progress:
        bar = progress.add_task("predicting", total=len(files), note="")
        for file in files:
            progress.update(bar, note=file.name)
            try:
                prediction = model.predict(file, question=options.question)
            except MediaError as error:
                failed += 1
                progress.console.print(f"avtune: {error}", highlight=False, markup=False)
            else:
                _show(
                    prediction, write_prediction(prediction, out, _stem(file, files), _facts(model, folder))
                )
                if isinstance(prediction, RetrievalPrediction):
                    searched.append(prediction)
            progress.advance(bar)
    if len(searched) > 1:
        _show_matches(searched, out)
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


def _facts(model: AudioVisualModel, run: Path) -> dict[str, object]:
    encoder = model.config.encoder
    return {"Run": str(run), "Tower": encoder.tower, "Method": " and ".join(encoder.methods)}


def _show(prediction: Prediction, page: Path) -> None:
    console.print(f"[bold]{escape(prediction.path.name)}[/bold]", highlight=False)
    console.print(SHOWN[type(prediction)](prediction))
    for note in prediction.notes:
        console.print(f"  note: {note}", highlight=False, markup=False)
    console.print(f"  page: {page}", highlight=False, markup=False)


def _timeline(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, TimelinePrediction)
    rows = [
        [f"{event.start:7.1f}", f"{event.end:7.1f}", event.label, f"{100 * event.probability:.0f} %"]
        for event in prediction.timeline
    ]
    return listing(["from s", "to s", "event", "probability"], rows) if rows else "  no event"


def _classes(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, ClassPrediction)
    rows = [[label, f"{100 * share:.0f} %"] for label, share in prediction.ranked[:SHOWN_CLASSES]]
    return listing(["label", "probability"], rows)


def _parsing(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, ParsingPrediction)
    rows = [
        [stream, f"{event.start:7.1f}", f"{event.end:7.1f}", event.label, f"{100 * event.probability:.0f} %"]
        for stream, events in (("heard", prediction.heard), ("seen", prediction.seen))
        for event in events
    ]
    headings = ["", "from s", "to s", "event", "probability"]
    return listing(headings, rows) if rows else "  nothing heard, nothing seen"


def _vectors(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, RetrievalPrediction)
    if prediction.agreement is None:
        return "  it lacks sound or frames: nothing to compare"
    return f"  cosine of its sound and its frames: {prediction.agreement:.3f}"


def _show_matches(predictions: list[RetrievalPrediction], out: Path) -> None:
    rows = [
        [match.sound, match.frames, f"{match.cosine:.3f}"]
        for match in write_matches(predictions, out)
        if match.rank == 1
    ]
    console.print(listing(["the sound of", "fits best the frames of", "cosine"], rows))
    console.print(f"  all pairs: {out / 'matches.csv'}", highlight=False, markup=False)


def _answer(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, AnswerPrediction)
    if not prediction.labels:
        return "  this run learned where sounds come from; the page shows it"
    rows = [[label, f"{100 * share:.0f} %"] for label, share in prediction.ranked[:SHOWN_CLASSES]]
    return listing([prediction.question, "probability"], rows)


def _masks(prediction: Prediction) -> RenderableType:
    assert isinstance(prediction, MaskPrediction)
    rows = [
        [
            f"{time:7.1f}",
            f"{100 * share:.1f} %",
            ", ".join(label for label, _ in prediction.class_shares(k)[:SHOWN_CLASSES]),
        ]
        for k, (time, share) in enumerate(zip(prediction.times, prediction.shares, strict=True))
        if share
    ]
    return listing(["at s", "of the frame sounds", ""], rows) if rows else "  nothing sounds"


SHOWN: dict[type[Prediction], Callable[[Prediction], RenderableType]] = {
    TimelinePrediction: _timeline,
    ClassPrediction: _classes,
    ParsingPrediction: _parsing,
    RetrievalPrediction: _vectors,
    AnswerPrediction: _answer,
    MaskPrediction: _masks,
}
"""How each kind of prediction looks in a terminal."""
