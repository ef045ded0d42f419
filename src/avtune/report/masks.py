"""How predicted masks are shown: as files beside a page, and as a card with the clip's sounding pixels lit."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avtune.datasets.masks import UNLABELLED
from avtune.media import MediaError, decode, probe, write_video
from avtune.media.encode import AAC_RATES
from avtune.metrics.segmentation import mask_ious
from avtune.report import numbers, tables
from avtune.report.answer_json import write_answer_json
from avtune.report.embedding import Media, load_media
from avtune.report.overlays import Picture, class_regions, lit, predicted_regions, strip
from avtune.report.player import ClipCard, clip_article, shown_media
from avtune.report.shown import ShownClip
from avtune.tasks import MaskPrediction, Prediction

LIT_SECONDS = 60.0
"""How much of a file is written with its sounding pixels lit, seconds from its beginning."""
LIT_RATE = 25.0
FILE_SIDE, PAGE_SIDE, CELL_SIDE = 480, 360, 200
"""Short side at most, pixels, of the files, of the page's video, and of its pictures."""
STRIP_SEGMENTS, PAGE_SEGMENTS = 60, 20
SOUND_RATE = 44100


@dataclass(frozen=True)
class LitClip:
    """A clip's frames, packed so that a minute of them fits into memory, and its sound.

    Attributes:
        middles: JPEG of the frame in the middle of each segment.
        frames: JPEG of each frame of the video.
        rate: Frames a second.
        waveform: Mono float32 (samples,); ``None``: there is no sound.
        sample_rate: Of the waveform.
    """

    middles: list[bytes]
    frames: list[bytes]
    rate: float
    waveform: NDArray[np.float32] | None
    sample_rate: int


def write_masks(prediction: Prediction, out: Path, stem: str) -> None:
    """Write pictures, a video and the shares of each second.

    ``<stem>_masks/<second>.png``: the frame in the middle of each second with its sounding pixels lit;
    ``<stem>_masks.png``: the first of them on one sheet; ``<stem>_sounding.mp4``: the clip (of a long file the first
    minute), lit likewise, with its sound; ``<stem>.json``: how much of the frame sounds in each second. A file without
    frames leaves the JSON alone.
    """
    assert isinstance(prediction, MaskPrediction)
    pictures: list[str] = []
    if clip := read_clip(prediction, FILE_SIDE):
        folder = out / f"{stem}_masks"
        folder.mkdir(exist_ok=True)
        shown = []
        for k, picture in enumerate(lit_middles(prediction, clip)):
            pictures.append(f"{folder.name}/{k}.png")
            Image.fromarray(picture).save(out / pictures[-1])
            if k < STRIP_SEGMENTS:
                shown.append(picture)
        captions = [_caption(prediction, k) for k in range(len(shown))]
        strip(shown, captions).save(out / f"{stem}_masks.png")
        write_lit_video(out / f"{stem}_sounding.mp4", prediction, clip)
    rows = [
        {
            "start": k * prediction.segment_seconds,
            "end": (k + 1) * prediction.segment_seconds,
            "frame_time": round(float(prediction.times[k]), 6),
            "share": round(float(share), 6),
            "classes": [
                {"label": label, "share": round(part, 6)} for label, part in prediction.class_shares(k)
            ],
            "picture": pictures[k] if pictures else None,
        }
        for k, share in enumerate(prediction.shares)
    ]
    write_answer_json(out / f"{stem}.json", prediction, {"labels": list(prediction.labels), "segments": rows})


def mask_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    """The clip with its sounding pixels lit, to play, and the frame of each second, above its truth if it is known."""
    prediction = clip.prediction
    assert isinstance(prediction, MaskPrediction)
    frames: LitClip | None = None
    remarks = list(prediction.notes)
    if clip.video is not None:
        try:
            frames = read_clip(prediction, PAGE_SIDE, clip.video)
        except MediaError as error:
            remarks.append(f"The clip can't be shown: {error.path.name}: {error.problem}; {error.remedy}")
    media = None if frames is None else _lit_media(prediction, frames)
    if media is None and clip.video is not None:
        media, remarks = shown_media(clip.video, page_folder, remarks)
    shares = prediction.shares
    sounding = int((shares > 0).sum())
    average = numbers.percent(float(shares.mean()))
    quiet = f"something sounds in <b>{sounding}</b> of {len(shares)} seconds, on {average} of the frame on average"
    below = "" if frames is None else _figures(prediction, frames, clip.true)
    return clip_article(clip.name, heading, quiet, media, below, tables.notes(remarks))


def read_clip(prediction: MaskPrediction, side: int, video: Path | None = None) -> LitClip | None:
    """Decode what is to be lit, in one pass.

    Args:
        prediction: Its segments' middles are read, and of the first minute every frame.
        side: Short side at most, pixels.
        video: The file; ``None``: the predicted one.

    Returns:
        ``None`` where there are no frames.

    Raises:
        MediaError: The file cannot be read.
    """
    info = probe(video or prediction.path)
    if info.video is None:
        return None
    rate = min(LIT_RATE, info.video.average_rate or LIT_RATE)
    seconds = min(info.duration, LIT_SECONDS)
    times = [k / rate for k in range(max(1, round(seconds * rate)))]
    middles = [min(float(time), info.duration) for time in prediction.times]
    own = info.audio.sample_rate if info.audio is not None else SOUND_RATE
    sample_rate = own if own in AAC_RATES else SOUND_RATE
    clip = decode(
        info.path, [*middles, *times], sample_rate=sample_rate, on_frame=lambda frame: _packed(frame, side)
    )
    if clip.frames is None:
        return None
    waveform = None if clip.waveform is None else clip.waveform[: round(seconds * sample_rate)]
    heard = waveform if waveform is not None and len(waveform) else None
    return LitClip(clip.frames[: len(middles)], clip.frames[len(middles) :], rate, heard, sample_rate)


def lit_middles(prediction: MaskPrediction, clip: LitClip) -> Iterator[Picture]:
    """The frame in the middle of each segment, lit."""
    for segment, packed in enumerate(clip.middles):
        yield _lit_frame(prediction, segment, _unpacked(packed))


def write_lit_video(path: Path, prediction: MaskPrediction, clip: LitClip) -> None:
    """Write a clip with its sound, each frame lit by its second's mask.

    Raises:
        MediaError: The file cannot be written.
    """
    last = len(prediction.probabilities) - 1

    def frames() -> Iterator[Picture]:
        for k, packed in enumerate(clip.frames):
            segment = min(int(k / clip.rate / prediction.segment_seconds), last)
            yield _lit_frame(prediction, segment, _unpacked(packed))

    write_video(path, frames(), clip.rate, clip.waveform, clip.sample_rate)


def _lit_frame(prediction: MaskPrediction, segment: int, frame: Picture) -> Picture:
    regions = predicted_regions(prediction, segment, (frame.shape[1], frame.shape[0]))
    return lit(frame, regions, tinted=prediction.classes is not None)


def _lit_media(prediction: MaskPrediction, clip: LitClip) -> Media | None:
    """The lit clip inside the page; ``None`` where it is too large."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lit.mp4"
        write_lit_video(path, prediction, clip)
        media = load_media(path, Path(folder), float(prediction.times[int(prediction.shares.argmax())]))
    return None if media.linked else media


def _figures(prediction: MaskPrediction, clip: LitClip, true: NDArray[Any] | None) -> str:
    known = true is not None
    cells = []
    for k, packed in enumerate(clip.middles[:PAGE_SEGMENTS]):
        frame = _small(_unpacked(packed))
        time, caption = numbers.clock(float(prediction.times[k])), escape(_caption(prediction, k, time=False))
        images = _image(_lit_frame(prediction, k, frame), f"Predicted to sound at {time}")
        truth = true[k] if true is not None and k < len(true) else None
        if truth is not None and (truth != UNLABELLED).any():
            told = np.where(truth == UNLABELLED, 0, truth).astype(np.uint8)
            regions = class_regions(told, (frame.shape[1], frame.shape[0]))
            images += _image(lit(frame, regions, tinted=prediction.classes is not None), f"True at {time}")
            caption += f" · IoU {numbers.percent(_iou(prediction, k, told))}"
        elif known:
            caption += " · not labelled"
        cells.append(f"<figure>{images}<figcaption>{time} {caption}</figcaption></figure>")
    left_out = len(clip.middles) - len(cells)
    words = "What is predicted to sound in the middle of each second is lit"
    words += "; below it, the truth." if known else "."
    words += f" The first {len(cells)} of {len(clip.middles)} seconds are shown." if left_out else ""
    return f'<p class="quiet">{words}</p><div class="masks">{"".join(cells)}</div>'


def _iou(prediction: MaskPrediction, segment: int, truth: NDArray[np.uint8]) -> float:
    """Jaccard index of all that sounds, whatever its class."""
    found = prediction.sounding[segment].astype(np.float64)
    return float(mask_ious(found[None], (truth > 0)[None])[0])


def _caption(prediction: MaskPrediction, segment: int, *, time: bool = True) -> str:
    share = float(prediction.shares[segment])
    words = ", ".join(label for label, _ in prediction.class_shares(segment)[:2])
    words = f"{words or 'sounding'} {numbers.percent(share)}" if share else "nothing"
    return f"{numbers.clock(float(prediction.times[segment]))}  {words}" if time else words


def _image(picture: Picture, alt: str) -> str:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=85)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt, quote=True)}">'


def _packed(frame: Picture, side: int) -> bytes:
    """A frame as JPEG, its short side at most `side`, both sides even as H.264 needs."""
    image = Image.fromarray(frame)
    scale = min(1.0, side / min(image.size))
    width, height = (max(2, 2 * round(length * scale / 2)) for length in image.size)
    content = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(content, "JPEG", quality=95, subsampling=0)
    return content.getvalue()


def _unpacked(packed: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"), dtype=np.uint8)


def _small(frame: Picture) -> Picture:
    image = Image.fromarray(frame)
    image.thumbnail((4 * CELL_SIDE, CELL_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)
