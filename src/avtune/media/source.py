"""Opening a media file: its streams, its clock, and its packets however damaged."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from avtune.media.errors import MediaError
from avtune.media.part import COPY_AGAIN, FilePart, MediaFile, shown_path

MICROSECONDS = 1_000_000
LARGEST_TIMESTAMP = 2**63 - 1
# A container that claims fewer bits a second than a clip of one black pixel needs has a damaged header.
LEAST_PLAUSIBLE_BIT_RATE = 100
DEMUX_ERRORS_TOLERATED = 20
# Two 8K frames: a header damaged into more must not eat the memory.
MOST_PIXELS = 2 * 7680 * 4320
# Formats that are lists of other files or addresses, or that turn any text into pictures.
REFUSED_FORMATS = frozenset(
    {"hls", "dash", "concat", "imf", "sdp", "rtsp", "rtp", "tty", "bin", "xbin", "idf", "adf"}
)
NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True)
class _Clock:
    """A stream's timestamps in seconds of the clip's clock: (scale * timestamp - shift) / unit."""

    scale: int
    shift: int
    unit: int


@dataclass(frozen=True)
class Source:
    """An open media file and the streams of it that are used.

    Attributes:
        path: The file, as messages call it.
        size: Of the file, bytes.
        container: PyAV's container.
        video: The best video stream with a decoder; never cover art.
        audio: The best audio stream with a decoder.
        origin: Time zero of the clip's clock in the container's seconds: the earliest start of both
            streams, whether or not both are read.
        declared_duration: Seconds from the container's header, None where it has none or an
            implausible one.
        undecodable: "video" and "audio" as far as the file has such streams but no decoder for any.
    """

    path: Path
    size: int
    container: InputContainer
    video: AvVideoStream | None
    audio: AvAudioStream | None
    origin: Fraction
    declared_duration: float | None
    undecodable: tuple[str, ...]
    _clocks: dict[int, _Clock | None] = field(default_factory=dict, init=False, repr=False)

    def time(self, timestamp: int | None, stream: Stream) -> Fraction | None:
        """Seconds on the clip's clock of a timestamp in the stream's units."""
        clock = self._clock(stream)
        if timestamp is None or clock is None:
            return None
        return Fraction(clock.scale * timestamp - clock.shift, clock.unit)

    def seconds(self, timestamp: int | None, stream: Stream) -> float | None:
        """The float nearest to :meth:`time`."""
        clock = self._clock(stream)
        if timestamp is None or clock is None:
            return None
        return (clock.scale * timestamp - clock.shift) / clock.unit

    def last_timestamp(self, seconds: float, stream: Stream) -> int:
        """The last timestamp whose :meth:`seconds` are not after the given ones."""
        clock = self._clock(stream)
        if clock is None:
            raise ValueError("a stream without a unit of time has no timestamps")
        last = math.floor((Fraction(seconds) * clock.unit + clock.shift) / clock.scale)
        if last >= LARGEST_TIMESTAMP:
            return LARGEST_TIMESTAMP
        while (clock.scale * (last + 1) - clock.shift) / clock.unit <= seconds:
            last += 1
        return last

    def shown_for(self, frame: VideoFrame, stream: AvVideoStream) -> float:
        """Seconds that a frame is shown if none follows: its own duration, else the stream's usual interval."""
        clock = self._clock(stream)
        if frame.duration and clock is not None:
            return frame.duration * clock.scale / clock.unit
        rate = stream.average_rate or stream.guessed_rate
        return float(1 / rate) if rate else 0.0

    def _clock(self, stream: Stream) -> _Clock | None:
        # Arithmetic on Fractions for every packet and frame took longer than decoding the sound.
        if stream.index not in self._clocks:
            base, origin = stream.time_base, self.origin
            self._clocks[stream.index] = (
                None
                if base is None
                else _Clock(
                    scale=base.numerator * origin.denominator,
                    shift=origin.numerator * base.denominator,
                    unit=base.denominator * origin.denominator,
                )
            )
        return self._clocks[stream.index]


@dataclass
class DemuxTally:
    """What reading the packets met: errors of the container, and the latest end of any packet in seconds."""

    errors: int = 0
    end: float = 0.0


@contextmanager
def open_source(file: MediaFile) -> Iterator[Source]:
    """Opens a media file.

    Raises:
        MediaError: It is missing, not a regular file, empty, not a media file, or without any
            video or audio stream that can be decoded.
    """
    path = shown_path(file)
    size = _readable_size(file)
    try:
        # The whitelist keeps a file that refers to others from reaching the network.
        container = av.open(
            _address(file), "r", options={"protocol_whitelist": "file,subfile"}, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(path, *_why_not_media(file)) from error
    with container:
        if REFUSED_FORMATS & set(container.format.name.split(",")):
            raise MediaError(path, *_why_not_media(file))
        video, audio = _best_video(container), _best_audio(container)
        if video is None and audio is None:
            raise MediaError(
                path, "has no video or audio stream that can be decoded", "convert it to H.264 and AAC"
            )
        for stream in (video, audio):
            if stream is not None:
                # One thread: packets and their errors stay together, and data loaders run a process per core.
                stream.codec_context.thread_count = 1
        if video is not None:
            options = {"max_pixels": str(MOST_PIXELS)}
            if _is_picture(container):
                # A picture that was cut short has no other frame to stand in for it: half of it grey is no answer.
                options["err_detect"] = "explode"
            video.codec_context.options = options
        starts = [
            stream.start_time * stream.time_base
            for stream in (video, audio)
            if stream is not None and stream.start_time is not None and stream.time_base is not None
        ]
        yield Source(
            path,
            size,
            container,
            video,
            audio,
            min(starts, default=Fraction(0)),
            _declared_duration(size, container),
            tuple(
                kind
                for kind, used in (("video", video), ("audio", audio))
                if used is None and _has(container, kind)
            ),
        )


def packets(source: Source, tally: DemuxTally) -> Iterator[Packet[Any]]:
    """Yields the packets of the source's streams in file order, going on after errors of the container.

    The empty packets with which PyAV asks decoders to flush are left out.
    """
    streams = [stream for stream in (source.video, source.audio) if stream is not None]
    while tally.errors <= DEMUX_ERRORS_TOLERATED:
        try:
            for packet in source.container.demux(*streams):
                # Empty packets, such as PyAV's last ones, empty the decoder and end it; that is the caller's to do.
                if packet.size == 0:
                    continue
                start = packet.pts if packet.pts is not None else packet.dts
                if start is not None:
                    end = source.seconds(start + (packet.duration or 0), packet.stream)
                    tally.end = max(tally.end, end or 0.0)
                yield packet
            return
        except av.FFmpegError:
            tally.errors += 1


def decode_packet(
    stream: AvVideoStream | AvAudioStream, packet: Packet[Any] | None
) -> tuple[list[Any], bool]:
    """The frames of a packet (None: what the decoder still holds), and whether the packet is bad."""
    try:
        return list(stream.codec_context.decode(packet)), packet is not None and packet.is_corrupt
    except av.error.EOFError:
        return [], False
    except av.FFmpegError:
        return [], True


def _address(file: MediaFile) -> str:
    """What FFmpeg opens; "file:" keeps a colon in a name from being taken for a protocol."""
    if isinstance(file, FilePart):
        end = file.offset + file.size
        return f"subfile,,start,{file.offset},end,{end},,:file:{file.archive}"
    return f"file:{file}"


def _readable_size(file: MediaFile) -> int:
    """Its length in bytes, if it can be opened."""
    path = file.archive if isinstance(file, FilePart) else Path(file)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(path, "does not exist", "check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            path, f"cannot be opened ({reason})", "check the path and its permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(path, "is a folder", "name a file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(path, "is not a regular file", "save it to a file first")
    size = file.size if isinstance(file, FilePart) else status.st_size
    if size == 0:
        raise MediaError(shown_path(file), "is empty (0 bytes)", COPY_AGAIN)
    if isinstance(file, FilePart) and status.st_size < file.offset + size:
        raise file.beyond_end()
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(path, f"cannot be opened ({error.strerror})", "check its permissions") from error
    return size


def _why_not_media(file: MediaFile) -> tuple[str, str]:
    """Problem and remedy of a file that FFmpeg does not open."""
    path, offset = (file.archive, file.offset) if isinstance(file, FilePart) else (Path(file), 0)
    with path.open("rb") as opened:
        opened.seek(offset)
        head = opened.read(4096)
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip"):
        return (
            "is an MP4 or MOV file without a readable index (moov): it was cut off or never finished",
            COPY_AGAIN,
        )
    if all(byte >= 32 or byte in b"\t\n\r\f\b\x1b" for byte in head):
        return "is text, not video or sound", "check that the download did not save an error page or a list"
    return "is not a video or sound file that FFmpeg can read", COPY_AGAIN


def _is_picture(container: InputContainer) -> bool:
    """Whether the file is one still picture, such as a JPEG or PNG."""
    return any(name == "image2" or name.endswith("_pipe") for name in container.format.name.split(","))


def _has(container: InputContainer, kind: str) -> bool:
    return any(
        stream.type == kind and stream.codec_context is None and not stream.disposition & NOT_VIDEO
        for stream in container.streams
    )


def _best_video(container: InputContainer) -> AvVideoStream | None:
    usable = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & NOT_VIDEO
    ]
    best = container.streams.best("video")
    return next((stream for stream in usable if stream is best), usable[0] if usable else None)


def _best_audio(container: InputContainer) -> AvAudioStream | None:
    usable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    best = container.streams.best("audio")
    return next((stream for stream in usable if stream is best), usable[0] if usable else None)


def _declared_duration(size: int, container: InputContainer) -> float | None:
    if container.duration is None or container.duration <= 0:
        return None
    seconds = container.duration / MICROSECONDS
    return seconds if size * 8 / seconds >= LEAST_PLAUSIBLE_BIT_RATE else None
