"""From a media file to the frames at requested times and the sound, in one pass over its packets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream
from numpy.typing import NDArray

from avtune.media.errors import MediaError
from avtune.media.part import COPY_AGAIN, MediaFile
from avtune.media.pictures import FrameSelector
from avtune.media.sound import MonoTrack
from avtune.media.source import DemuxTally, Source, decode_packet, open_source, packets
from avtune.media.sparing import NeedsEveryFrame, SparingVideo

# Healthy files end within a few hundredths of what their header says.
EARLY_END_SECONDS = 0.25
FLUSH_ATTEMPTS = 64


@dataclass(frozen=True)
class Damage:
    """What was wrong with the part of a file that was read, in counts; all zero for a healthy file.

    Frames of H.264 that no requested time needs are not decoded, and damage to them is not counted, unless
    ``decode`` is told to decode every frame.

    Attributes:
        video_packets_bad: Video packets that failed to decode or were marked as damaged by the container.
        audio_packets_bad: The same for audio.
        frames_decoded: Video frames decoded (not damage: for scale; decoding stops after the last
            requested time).
        frames_corrupt: Frames that the decoder itself marks as damaged or concealed.
        frames_repeated: Requested times later than the end of the last decodable frame, which
            therefore got that frame.
        audio_gap_seconds: Silence put where sound is missing: jumps between timestamps, and the
            missing end where packets there were bad.
        notes: Short sentences for a person.
    """

    video_packets_bad: int = 0
    audio_packets_bad: int = 0
    frames_decoded: int = 0
    frames_corrupt: int = 0
    frames_repeated: int = 0
    audio_gap_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether anything at all was wrong."""
        return bool(
            self.video_packets_bad
            or self.audio_packets_bad
            or self.frames_corrupt
            or self.frames_repeated
            or self.audio_gap_seconds
            or self.notes
        )


@dataclass(frozen=True)
class Clip:
    """What was asked for of one file.

    Attributes:
        path: The file.
        duration: Seconds, as the container declares; where it declares none, the end of the last packet.
        times: The requested times (n,) float64 in seconds, in the order of the request.
        frames: One entry for each of ``times``: RGB uint8 (height, width, 3), or what ``on_frame``
            made of it. None if video was not asked for or the file has none that can be decoded.
        waveform: Mono float32 (samples,), full scale 1, sample 0 at time ``start`` of the same clock
            as ``times``. None if audio was not asked for or the file has none that can be decoded.
        sample_rate: Of ``waveform``, in Hz.
        damage: What was wrong with the file.
    """

    path: Path
    duration: float
    times: NDArray[np.float64]
    frames: list[Any] | None
    waveform: NDArray[np.float32] | None
    sample_rate: int
    damage: Damage


def decode(
    path: MediaFile,
    times: Sequence[float],
    *,
    sample_rate: int = 16000,
    video: bool = True,
    audio: bool = True,
    on_frame: Callable[[NDArray[np.uint8]], Any] | None = None,
    start: float = 0.0,
    until: float | None = None,
    every_frame: bool = False,
) -> Clip:
    """Decodes the frames shown at the requested times and the sound, in one pass.

    Time zero is the earliest start of the file's (best) video and audio stream. The frame at time t is the
    last one whose presentation time is <= t (to 1 microsecond), or the first frame if t comes before it.
    Exact for any frame rate, fixed or variable: the video is decoded from its start, without seeking, up to
    the last requested time. H.264 pictures on which no requested frame depends are left out. Damaged packets
    are skipped and counted.

    Args:
        path: A media file.
        times: Seconds, in any order, repeats allowed.
        sample_rate: Of the waveform, in Hz.
        video: Whether to read frames.
        audio: Whether to read sound.
        on_frame: Applied to each distinct selected frame, RGB uint8 (height, width, 3), as it is
            decoded, so that not all full-size frames are in memory: once, but for damaged H.264 files, where
            it begins anew when the damage shows. Times that select the same frame
            share the same object.
        start: Where the waveform begins, in seconds. Sound before it is decoded but not kept.
        until: Where the waveform ends at the latest, in seconds; reading stops there. None: whole.
        every_frame: Whether to decode every frame up to the last requested time, so that damage to those that
            no requested frame depends on is counted too. The frames are the same.

    Raises:
        MediaError: The file is missing, no media file, or nothing in it can be decoded. A file
            without video or without audio is no error.
        ValueError: ``sample_rate`` is not positive, a time is not finite, or the window [start, until) is
            empty or begins before 0.
    """
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, not {sample_rate}")
    requested = np.asarray(times, dtype=np.float64)
    if requested.ndim != 1 or not np.isfinite(requested).all():
        raise ValueError("times must be a flat sequence of finite seconds")
    if not 0 <= start < (math.inf if until is None else until):
        raise ValueError(f"start must be >= 0 and before until, not {start} and {until}")
    selector: FrameSelector[Any] = FrameSelector(requested.tolist(), on_frame or _itself)
    request = _Request(requested, selector, sample_rate, video, audio, start, until)
    if not every_frame:
        with open_source(path) as source:
            try:
                return _Pass(source, request, sparing=True).run()
            except NeedsEveryFrame:
                selector.restart()
    with open_source(path) as source:
        return _Pass(source, request, sparing=False).run()


def decode_audio(path: MediaFile, sample_rate: int = 16000) -> tuple[NDArray[np.float32], Damage]:
    """Decodes the sound alone, on the same clock as :func:`decode`.

    Returns:
        Mono float32 (samples,), full scale 1, and what was wrong.

    Raises:
        MediaError: The file cannot be read, or has no sound that can be decoded.
    """
    clip = decode(path, [], sample_rate=sample_rate, video=False)
    if clip.waveform is None:
        raise MediaError(clip.path, "has no sound that can be decoded", "use a file with an audio track")
    return clip.waveform, clip.damage


def _itself(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture


@dataclass(frozen=True)
class _Request:
    times: NDArray[np.float64]
    selector: FrameSelector[Any]
    sample_rate: int
    video: bool
    audio: bool
    start: float
    until: float | None


@dataclass
class _Tally:
    demux: DemuxTally = field(default_factory=DemuxTally)
    frames_decoded: int = 0
    frames_corrupt: int = 0
    video_bad: int = 0
    audio_bad: int = 0
    audio_end: float = 0.0
    notes: list[str] = field(default_factory=list)


class _Pass:
    """One pass over one file: packets in, a clip out."""

    def __init__(self, source: Source, request: _Request, sparing: bool) -> None:
        self.source = source
        self.times = request.times
        self.sample_rate = request.sample_rate
        self.video = source.video if request.video else None
        self.audio = source.audio if request.audio else None
        self.until = request.until
        self.selector = request.selector
        self.track = MonoTrack(request.sample_rate, request.start, request.until, source.declared_duration)
        self.tally = _Tally()
        self.sparing: SparingVideo | None = None
        if sparing and self.video is not None and SparingVideo.suits(self.video, self.selector):
            self.sparing = SparingVideo(source, self.video, self.selector)

    def run(self) -> Clip:
        self._read()
        frames = None
        if self.video is not None:
            frames = self.selector.finish() if len(self.times) else []
        waveform = self.track.finish() if self.audio is not None else None
        self._refuse_nothing(frames, waveform)
        duration = self.source.declared_duration
        return Clip(
            path=self.source.path,
            duration=self.tally.demux.end if duration is None else duration,
            times=self.times,
            frames=frames,
            waveform=waveform,
            sample_rate=self.sample_rate,
            damage=self._damage(frames, waveform),
        )

    def _read(self) -> None:
        measure = self.source.declared_duration is None and self.until is None
        for packet in packets(self.source, self.tally.demux):
            video_open = self.video is not None and not self.selector.done
            audio_open = self.audio is not None and not self.track.done
            if not (video_open or audio_open or measure):
                return
            if packet.stream is self.video and video_open:
                self._take_video(packet)
            elif packet.stream is self.audio and audio_open:
                self._decode_audio(packet)
        video_ended = self.video is not None and not self.selector.done
        audio_ended = self.audio is not None and not self.track.done
        self._flush()
        if self._lost_end():
            return
        if video_ended and self.tally.frames_decoded:
            end = self.selector.end if self.sparing is None else self.sparing.end
            self._note_early_end("video", self.source.video, end)
        if audio_ended and self.track.end:
            self._note_early_end("sound", self.source.audio, self.track.end)

    def _take_video(self, packet: Packet[Any] | None) -> None:
        """Decodes a packet, or all that is left."""
        if self.sparing is not None:
            if self.tally.demux.errors:
                raise NeedsEveryFrame
            self.sparing.take(packet)
            self.tally.frames_decoded = self.sparing.frames_decoded
        elif packet is not None:
            self._decode_video(packet)
        else:
            # A decoder that fails while it is being emptied may still hold good frames.
            for _ in range(FLUSH_ATTEMPTS):
                if self.selector.done or not self._decode_video(None):
                    break

    def _decode_video(self, packet: Packet[Any] | None) -> bool:
        stream = self.video
        assert stream is not None
        frames, bad = decode_packet(stream, packet)
        self.tally.video_bad += bad
        self.tally.frames_decoded += len(frames)
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            self.tally.frames_corrupt += frame.is_corrupt
            timestamp = frame.pts if frame.pts is not None else frame.dts
            time, shown_for = self.source.seconds(timestamp, stream), self.source.shown_for(frame, stream)
            self.selector.offer(frame, time, shown_for)
        return bool(frames or bad)

    def _decode_audio(self, packet: Packet[Any] | None) -> bool:
        stream = self.audio
        assert stream is not None
        frames, bad = decode_packet(stream, packet)
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            self.track.offer(
                frame, self.source.time(frame.pts if frame.pts is not None else frame.dts, stream)
            )
        self.tally.audio_bad += bad
        if packet is not None:
            last = None if packet.pts is None else packet.pts + (packet.duration or 0)
            self.tally.audio_end = max(self.tally.audio_end, self.source.seconds(last, stream) or 0.0)
        return bool(frames or bad)

    def _flush(self) -> None:
        if self.video is not None and not self.selector.done:
            self._take_video(None)
        for _ in range(FLUSH_ATTEMPTS):
            if self.audio is None or self.track.done or not self._decode_audio(None):
                break

    def _refuse_nothing(self, frames: list[Any] | None, waveform: NDArray[np.float32] | None) -> None:
        tried_video = self.video is not None and len(self.times) > 0
        if (tried_video or self.audio is not None) and not frames and waveform is None:
            what = " and ".join(
                name for name, tried in (("video", tried_video), ("audio", self.audio)) if tried
            )
            raise MediaError(self.source.path, f"nothing of its {what} can be decoded", COPY_AGAIN)

    def _damage(self, frames: list[Any] | None, waveform: NDArray[np.float32] | None) -> Damage:
        tally, notes = self.tally, self.tally.notes
        if self.video is not None and frames is None:
            notes.append("no video frame can be decoded")
        if self.audio is not None and waveform is None:
            notes.append("no sound can be decoded")
        notes.extend(f"no decoder for its {kind}" for kind in self.source.undecodable)
        if tally.demux.errors:
            notes.append(f"the container is damaged in {tally.demux.errors} places")
        if self.track.timestamps_ignored:
            notes.append(f"{self.track.timestamps_ignored} impossible audio timestamps ignored")
        gap = self.track.gap_seconds
        if tally.audio_bad and waveform is not None and not self.track.done:
            gap += max(0.0, tally.audio_end - self.track.end)
        return Damage(
            video_packets_bad=tally.video_bad,
            audio_packets_bad=tally.audio_bad,
            frames_decoded=tally.frames_decoded,
            frames_corrupt=tally.frames_corrupt,
            frames_repeated=self.selector.frames_repeated,
            audio_gap_seconds=round(gap, 6),
            notes=tuple(notes),
        )

    def _lost_end(self) -> bool:
        """Notes packets that end before the header says, where no other stream can explain it."""
        source, end = self.source, self.tally.demux.end
        used = sum(stream is not None for stream in (source.video, source.audio))
        declared = source.declared_duration
        if (
            declared is not None
            and len(source.container.streams) == used
            and end < declared - EARLY_END_SECONDS
        ):
            self.tally.notes.append(f"the file ends at {end:.2f} s of {declared:.2f} s")
            return True
        return False

    def _note_early_end(self, what: str, stream: AvVideoStream | AvAudioStream | None, end: float) -> None:
        if stream is None or not stream.duration:
            return
        declared = self.source.seconds((stream.start_time or 0) + stream.duration, stream)
        if declared is not None and end < declared - EARLY_END_SECONDS:
            self.tally.notes.append(f"{what} ends at {end:.2f} s of {declared:.2f} s")
