"""Writing frames and sound as an mp4 file."""

import os
import uuid
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from avtune.media.errors import MediaError

AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_FRAME_SAMPLES = 1024
AAC_BIT_RATE = 96_000
# One thread, and no macroblock tree: with it x264's output depends on what happens to lie in memory.
H264_OPTIONS = {"preset": "superfast", "threads": "1", "x264-params": "mbtree=0"}
AAC_OPTIONS = {"aac_coder": "fast"}


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    rate: float,
    waveform: NDArray[np.float32] | None = None,
    sample_rate: int = 16000,
    *,
    quality: int = 23,
) -> None:
    """Writes H.264 (yuv420p) and AAC in an mp4 file that browsers play and stream.

    Frame k is shown at k / ``rate`` seconds and sample 0 sounds at 0: the encoder's delay is undone by the
    container, so sound and picture come back where they were. The same input gives the same bytes on the
    same version of PyAV. The file appears under its name only when it is complete.

    Args:
        path: Where to write; an existing file is replaced. The folder must exist.
        frames: RGB pictures uint8 (height, width, 3), all of one size, height and width even (H.264 with
            halved colour has no odd sizes: crop or pad). Read once, not kept.
        rate: Frames a second.
        waveform: Mono float32 (samples,), full scale 1, or None for a file without sound.
        sample_rate: Of the waveform, one of the rates AAC has.
        quality: x264's constant rate factor, 0 (best) to 51 (smallest).

    Raises:
        MediaError: The frames are none, odd, or of differing size; the sample rate is none of
            AAC's; the waveform is not finite; or the file cannot be written.
        ValueError: ``rate`` or ``quality`` is out of range.
    """
    path = Path(path)
    if not 0 < rate < 1000 or not 0 <= quality <= 51:
        raise ValueError(f"rate must be in (0, 1000) and quality in [0, 51], not {rate} and {quality}")
    if waveform is not None:
        _check_sound(path, waveform, sample_rate)
    # Beside the target, so that the renaming is atomic; FFmpeg creates it with the user's usual permissions.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part")
    # faststart puts the index first, so that a page can play it while loading.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    try:
        with av.open(f"file:{temporary}", "w", format="mp4", options=options) as container:
            _Writer(container, path, rate, quality, waveform, sample_rate).write(frames)
        temporary.replace(path)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        raise MediaError(
            path, f"cannot be written ({reason})", "check folder, permissions and space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


class _Writer:
    """One output file: pictures as they come, with the sound kept just ahead of them."""

    def __init__(
        self,
        container: OutputContainer,
        path: Path,
        rate: float,
        quality: int,
        waveform: NDArray[np.float32] | None,
        sample_rate: int,
    ) -> None:
        self.container = container
        self.path = path
        self.rate = Fraction(rate).limit_denominator(1001)
        self.waveform = waveform
        self.sample_rate = sample_rate
        self.samples_written = 0
        self.reformatter = VideoReformatter()
        self.video = container.add_stream(
            "libx264", rate=self.rate, options=H264_OPTIONS | {"crf": str(quality)}
        )
        self.video.pix_fmt = "yuv420p"
        self.video.codec_context.time_base = 1 / self.rate
        self.video.codec_context.color_range = ColorRange.MPEG
        self.video.codec_context.colorspace = Colorspace.ITU601
        self.audio: AvAudioStream | None = None
        if waveform is not None:
            self.audio = container.add_stream("aac", rate=sample_rate, layout="mono", options=AAC_OPTIONS)
            self.audio.bit_rate = AAC_BIT_RATE

    def write(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        count = 0
        for count, picture in enumerate(frames, start=1):
            self._check_picture(picture, first=count == 1)
            self._write_sound(float(count / self.rate))
            frame = self.reformatter.reformat(
                VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts, frame.time_base = count - 1, 1 / self.rate
            self.container.mux(self.video.encode(frame))
        if count == 0:
            raise MediaError(self.path, "cannot be written without any frame", "give at least one")
        self._write_sound(float("inf"))
        self.container.mux(self.video.encode(None))
        if self.audio is not None:
            self.container.mux(self.audio.encode(None))

    def _check_picture(self, picture: NDArray[np.uint8], *, first: bool) -> None:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            problem = f"a frame is {picture.dtype} {picture.shape}"
            raise MediaError(self.path, problem, "give RGB uint8 (height, width, 3)")
        height, width = picture.shape[:2]
        if first:
            self.video.width, self.video.height = width, height
        if height % 2 or width % 2 or not height or not width:
            raise MediaError(
                self.path, f"frames of {width}x{height} pixels", "crop or pad to even width and height"
            )
        if (width, height) != (self.video.width, self.video.height):
            problem = f"a frame of {width}x{height} after one of {self.video.width}x{self.video.height}"
            raise MediaError(self.path, problem, "give all frames the same size")

    def _write_sound(self, until: float) -> None:
        if self.audio is None or self.waveform is None:
            return
        while self.samples_written < len(self.waveform) and self.samples_written < until * self.sample_rate:
            piece = self.waveform[self.samples_written : self.samples_written + AAC_FRAME_SAMPLES]
            frame = AudioFrame.from_ndarray(
                np.ascontiguousarray(piece[None], dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = self.sample_rate
            frame.pts, frame.time_base = self.samples_written, Fraction(1, self.sample_rate)
            self.samples_written += len(piece)
            self.container.mux(self.audio.encode(frame))


def _check_sound(path: Path, waveform: NDArray[np.float32], sample_rate: int) -> None:
    if sample_rate not in AAC_RATES:
        rates = ", ".join(map(str, AAC_RATES))
        raise MediaError(path, f"AAC has no sample rate of {sample_rate} Hz", f"resample to one of {rates}")
    if waveform.ndim != 1 or not len(waveform):
        raise MediaError(path, f"the waveform has shape {waveform.shape}", "give mono float32 (samples,)")
    if not np.isfinite(waveform).all():
        raise MediaError(path, "the waveform holds values that are not finite", "mend them before writing")
