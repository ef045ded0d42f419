"""Writes small real media files whose frame numbers can be read back from their brightness."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)
DARKEST, LEVEL_STEP = 20, 5
MOST_FRAMES = 44


def level(number: int) -> int:
    return DARKEST + LEVEL_STEP * number


def number_of(picture: np.ndarray) -> int:
    """The frame number of a decoded picture, and a failure if its brightness names none clearly."""
    number = (float(picture.mean()) - DARKEST) / LEVEL_STEP
    assert abs(number - round(number)) < 0.4, f"brightness {picture.mean():.2f} names no frame"
    return round(number)


def plain_pictures(count: int, width: int = 32, height: int = 32) -> list[np.ndarray]:
    assert count <= MOST_FRAMES
    return [np.full((height, width, 3), level(k), np.uint8) for k in range(count)]


def tone(seconds: float, rate: int, hertz: float = 440.0, volume: float = 0.5) -> np.ndarray:
    return (volume * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def clicks(seconds: int, rate: int, every: int = 1) -> np.ndarray:
    """A click of 1 ms with its middle at every whole second but the first."""
    waveform = np.zeros(seconds * rate, np.float32)
    half = max(rate // 2000, 1)
    for second in range(every, seconds, every):
        waveform[second * rate - half : second * rate + half + 1] = 0.8 * np.hanning(2 * half + 3)[1:-1]
    return waveform


def click_lags(waveform: np.ndarray, seconds: int, rate: int = 16000) -> list[int]:
    """Samples by which the loudest sample near each whole second is late."""
    near = rate // 4
    return [
        int(np.abs(waveform[k * rate - near : k * rate + near]).argmax()) - near for k in range(1, seconds)
    ]


def write_media(
    path: Path,
    *,
    pictures: Sequence[np.ndarray] = (),
    video_codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    rate: int = 10,
    video_options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], object] | None = None,
    sound: np.ndarray | None = None,
    audio_codec: str = "aac",
    sample_rate: int = 48000,
    layout: str = "stereo",
    sound_start: float = 0.0,
    keep_audio: Callable[[float], bool] = lambda second: True,
) -> Path:
    """Writes a file with PyAV alone, independent of avtune.

    Args:
        path: The suffix chooses the container.
        pictures: RGB uint8 (height, width, 3).
        times_ms: Presentation times in milliseconds; at ``rate`` if None.
        prepare: Called with the video stream before encoding.
        sound: (channels, samples) or (samples,), spread over all channels of ``layout``.
        sound_start: Seconds at which the sound begins.
        keep_audio: Whether the audio packet at that second is written.
    """
    with av.open(str(path), "w") as container:
        video = audio = None
        if len(pictures):
            # x265 counts from its own thread pool; one thread keeps it silent and repeatable.
            options = {"threads": "1"} | (video_options or {})
            if video_codec == "libx265":
                options["x265-params"] = "log-level=none:pools=1"
            video = container.add_stream(video_codec, rate=rate, options=options)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = pixel_format
            video.time_base = video.codec_context.time_base = MILLISECOND if times_ms else Fraction(1, rate)
            if prepare is not None:
                prepare(video)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=sample_rate, layout=layout)
        if video is not None:
            for index, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = times_ms[index] if times_ms else index
                frame.time_base = MILLISECOND if times_ms else Fraction(1, rate)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            _write_sound(container, audio, sound, sound_start, keep_audio)
    return path


def _write_sound(container, audio, sound, start, keep):
    context = audio.codec_context
    channels = context.layout.nb_channels
    sound = np.broadcast_to(sound, (channels, sound.shape[-1]))
    packed = np.ascontiguousarray(sound.T).reshape(1, -1)
    whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=context.layout.name)
    whole.sample_rate = context.sample_rate
    whole.pts, whole.time_base = round(start * context.sample_rate), Fraction(1, context.sample_rate)
    converter = av.AudioResampler(
        format=context.format.name,
        layout=context.layout.name,
        rate=context.sample_rate,
        frame_size=context.frame_size or 1024,
    )
    packets = []
    for frame in [*converter.resample(whole), *converter.resample(None)]:
        if frame is not None:
            packets += audio.encode(frame)
    packets += audio.encode(None)
    for packet in packets:
        if packet.size and keep(float(packet.pts * packet.time_base)):
            container.mux(packet)
