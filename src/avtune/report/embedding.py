"""Bring a clip's media into a page: embedded as it is, made small first, or linked where it is too big."""

import base64
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avtune.media import MediaError, MediaInfo, decode, probe, write_video

EMBED_LIMIT = 8_000_000
"""Bytes of media that a page embeds at most, per clip; what is larger is made small, or linked."""

PREVIEW_SECONDS = 300.0
"""The longest clip that is encoded anew for a page, in seconds; longer ones are linked."""

_PREVIEW_RATE = 12.5
_PREVIEW_SIDE = 240
_AUDIO_ONLY_SIDE = 64
_VIDEO_CODECS = {"mp4": {"h264", "av1"}, "webm": {"vp8", "vp9", "av1"}}
_AUDIO_CODECS = {"mp4": {"aac", "mp3"}, "webm": {"opus", "vorbis"}}


@dataclass(frozen=True)
class Media:
    """A media element's source.

    Attributes:
        source: A ``data:`` address that holds the media, or an address relative to the page.
        linked: Whether `source` is an address; such a page needs the file beside it.
        poster: A ``data:`` address of a still (JPEG), or "" where there is none.
        audio_only: Whether there is sound and no picture.
        note: One sentence that says what was done to the media, or "" where it is embedded unchanged.
        ratio: Width over height of the picture, within [0.4, 4].
    """

    source: str
    linked: bool = False
    poster: str = ""
    audio_only: bool = False
    note: str = ""
    ratio: float = 16 / 9


def load_media(video: Path, page_folder: Path, poster_time: float = 0.0) -> Media:
    """Make `video` playable from a page in `page_folder`.

    A file of at most :data:`EMBED_LIMIT` bytes in a form that browsers play is embedded unchanged. Another
    one of at most :data:`PREVIEW_SECONDS` is encoded small (short side at most 240 pixels, 12.5 frames
    a second, mono sound) and embedded. The rest is linked by a relative address.

    Args:
        video: The media file.
        page_folder: Where the page is written; relative addresses start there.
        poster_time: The time of the still to show before playing, in seconds. After :data:`PREVIEW_SECONDS` there is
            none, since it would take decoding the file up to there.

    Raises:
        MediaError: The file can't be read at all.
    """
    info = probe(video)
    kind = _playable_kind(info)
    poster = _poster(info, poster_time)
    audio_only = info.video is None
    ratio = min(max(info.video.width / info.video.height, 0.4), 4.0) if info.video else 16 / 9
    if kind and info.size_bytes <= EMBED_LIMIT:
        return Media(_data_address(video.read_bytes(), kind), False, poster, audio_only, "", ratio)
    if info.duration <= PREVIEW_SECONDS:
        small = _encode_small(info)
        if len(small) <= EMBED_LIMIT:
            note = "The clip was encoded anew, small, for this page."
            return Media(_data_address(small, "video/mp4"), False, poster, audio_only, note, ratio)
    address = quote(Path(os.path.relpath(video.resolve(), page_folder.resolve())).as_posix())
    note = f"The clip ({info.size_bytes / 1e6:.1f} MB) is too large to embed: the page links to the file."
    if not kind:
        note += " Not every browser plays its form."
    return Media(address, True, poster, audio_only, note, ratio)


def _playable_kind(info: MediaInfo) -> str:
    """The MIME type under which browsers play this file, or "" where they may not."""
    with info.path.open("rb") as file:
        head = file.read(64)
    container = (
        "mp4" if head[4:8] == b"ftyp" else "webm" if head[:4] == b"\x1aE\xdf\xa3" and b"webm" in head else ""
    )
    if not container:
        return ""
    video_fits = info.video is None or (
        info.video.codec in _VIDEO_CODECS[container] and info.video.pixel_format in ("yuv420p", "yuvj420p")
    )
    audio_fits = info.audio is None or info.audio.codec in _AUDIO_CODECS[container]
    return f"{'audio' if info.video is None else 'video'}/{container}" if video_fits and audio_fits else ""


def _data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    """The frame, shape (H, W, 3), at most 240 pixels at its short side, both sides even."""
    image = Image.fromarray(frame)
    scale = min(1.0, _PREVIEW_SIDE / min(image.size))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in image.size)
    content = io.BytesIO()
    image.resize((width, height), Image.Resampling.BILINEAR).save(content, "JPEG", quality=88)
    return content.getvalue()


def _poster(info: MediaInfo, time: float) -> str:
    if info.video is None or time > PREVIEW_SECONDS:
        return ""
    try:
        clip = decode(info.path, [min(max(0.0, time), info.duration)], audio=False, on_frame=_jpeg)
    except MediaError:
        return ""
    return _data_address(clip.frames[0], "image/jpeg") if clip.frames else ""


def _encode_small(info: MediaInfo) -> bytes:
    """The clip as a small H.264 and AAC mp4. Frames wait as JPEG, so minutes of video fit into memory."""
    rate = min(_PREVIEW_RATE, (info.video.average_rate if info.video else None) or _PREVIEW_RATE)
    times = (np.arange(max(1, round(info.duration * rate))) / rate).tolist()
    clip = decode(info.path, times, on_frame=_jpeg)
    if clip.frames is None:
        rate = 1.0
        blank = np.full((_AUDIO_ONLY_SIDE, _AUDIO_ONLY_SIDE, 3), 32, np.uint8)
        frames = (blank for _ in range(max(1, round(info.duration))))
    else:
        frames = (np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in clip.frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preview.mp4"
        write_video(path, frames, rate, clip.waveform, clip.sample_rate, quality=30)
        return path.read_bytes()
