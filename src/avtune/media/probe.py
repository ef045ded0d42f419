"""What a media file contains: from its header, its first frame, and its packets where those do not tell."""

from dataclasses import dataclass
from pathlib import Path

from av.audio.stream import AudioStream as AvAudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from avtune.media.part import MediaFile
from avtune.media.pictures import quarter_turns
from avtune.media.source import DemuxTally, Source, decode_packet, open_source, packets

# A damaged start is passed over, but a probe of a broken file must not become a decode of it.
PACKETS_TO_FIRST_FRAME = 200


@dataclass(frozen=True)
class VideoStream:
    """The video stream that :func:`avtune.media.decode` reads.

    Attributes:
        width: Pixels, after rotation.
        height: Pixels, after rotation.
        rotation: Degrees counterclockwise by which decoded frames are turned: 0, 90, 180 or 270.
        codec: Such as ``"h264"``.
        average_rate: Frames a second, None if the container does not tell.
        pixel_format: As stored, such as ``"yuv420p"``.
        frames: Number of frames, None if the container does not tell.
    """

    width: int
    height: int
    rotation: int
    codec: str
    average_rate: float | None
    pixel_format: str
    frames: int | None


@dataclass(frozen=True)
class AudioStream:
    """The audio stream that :func:`avtune.media.decode` reads.

    Attributes:
        codec: Such as ``"aac"``.
        sample_rate: As stored, in Hz.
        channels: As stored.
    """

    codec: str
    sample_rate: int
    channels: int


@dataclass(frozen=True)
class MediaInfo:
    """What a media file contains.

    Attributes:
        path: The file.
        size_bytes: Of the file.
        duration: Seconds; the end of the last packet where the container declares none.
        video: None if there is no video stream; cover art is not video.
        audio: None if there is no audio stream.
    """

    path: Path
    size_bytes: int
    duration: float
    video: VideoStream | None
    audio: AudioStream | None


def probe(path: MediaFile) -> MediaInfo:
    """Looks into a media file: decodes one frame, for its rotation, and no sound.

    Raises:
        MediaError: It is missing, a folder, empty, not a media file, or without any stream
            that can be decoded.
    """
    with open_source(path) as source:
        first, measured = _look(source)
        return MediaInfo(
            path=source.path,
            size_bytes=source.size,
            duration=measured if source.declared_duration is None else source.declared_duration,
            video=None if source.video is None else _describe_video(source.video, first),
            audio=None if source.audio is None else _describe_audio(source.audio),
        )


def _look(source: Source) -> tuple[VideoFrame | None, float]:
    """The first frame that decodes, and the end in seconds of the last packet read."""
    tally = DemuxTally()
    first: VideoFrame | None = None
    tries = 0 if source.video is None else PACKETS_TO_FIRST_FRAME
    for packet in packets(source, tally):
        if tries and packet.stream is source.video:
            tries -= 1
            frames, _ = decode_packet(source.video, packet)
            if frames:
                first, tries = frames[0], 0
        if not tries and source.declared_duration is not None:
            break
    if first is None and source.video is not None:
        frames, _ = decode_packet(source.video, None)
        first = frames[0] if frames else None
    return first, tally.end


def _describe_video(stream: AvVideoStream, first: VideoFrame | None) -> VideoStream:
    context = stream.codec_context
    width, height = (context.width, context.height) if first is None else (first.width, first.height)
    turns = 0 if first is None else quarter_turns(first)
    if turns % 2:
        width, height = height, width
    rate = stream.average_rate or stream.guessed_rate
    return VideoStream(
        width=width,
        height=height,
        rotation=90 * turns,
        codec=context.codec.canonical_name,
        average_rate=float(rate) if rate else None,
        pixel_format=context.pix_fmt or "unknown",
        frames=stream.frames or None,
    )


def _describe_audio(stream: AvAudioStream) -> AudioStream:
    context = stream.codec_context
    return AudioStream(context.codec.canonical_name, context.sample_rate, context.layout.nb_channels)
