"""Everything between a file and a model's tensors, as one value that is stored beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtune.config import InputConfig
from avtune.errors import AvtuneError
from avtune.media import Damage, MediaError, MediaFile, VideoStream, decode, probe
from avtune.transforms.frames import mean_frame, resize_frame
from avtune.transforms.prepared import Prepared
from avtune.transforms.presets import AudioPreset, check_spectrogram_size, resolve_audio
from avtune.transforms.spectrograms import pictures, sound_windows
from avtune.transforms.windows import Section, section_starts, spread_times

STATE_VERSION = 1
# Half a step of 16-bit sound: what a track of zeros can become on its way through a lossy codec.
SILENCE_PEAK = 2.0**-16

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class _Sound:
    """A waveform whose sample 0 is sample ``first`` of the file, and the mean to subtract from it."""

    waveform: Tensor
    first: int
    mean: float


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes frames and spectrograms. Equal values give bit-equal tensors, on any machine.

    Attributes:
        segments: Time steps per clip, T.
        segment_seconds: Length of one time step, seconds.
        audio: The audio front end, complete.
        size: Side of the square frames, pixels.
        mean: Mean per channel of RGB in [0, 1], for :func:`avtune.transforms.normalise_frames`.
        std: Standard deviation per channel of RGB in [0, 1], likewise.
        frame_placement: ``grid`` or ``spread``, see :class:`avtune.config.VideoInput`.
    """

    segments: int
    segment_seconds: float
    audio: AudioPreset
    size: int
    mean: Triple
    std: Triple
    frame_placement: Literal["grid", "spread"] = "grid"

    def __post_init__(self) -> None:
        """Refuse settings that no clip could satisfy.

        Raises:
            AvtuneError: If a number is not positive or the placement is unknown.
        """
        if self.segments < 1 or not self.segment_seconds > 0 or self.size < 1:
            raise AvtuneError(
                f"input.segments={self.segments}, input.segment_seconds={self.segment_seconds} and "
                f"input.video.size={self.size} must all be above zero; correct the one that is not"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(deviation > 0 for deviation in self.std):
            raise AvtuneError("input.video.mean and std must have three values, std above zero; correct them")
        if self.frame_placement not in ("grid", "spread"):
            raise AvtuneError(f"input.video.placement is {self.frame_placement!r}; choose grid or spread")

    @classmethod
    def from_config(
        cls,
        config: InputConfig,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        audio_size: int | None = None,
    ) -> Preprocessing:
        """Complete a recipe's input section by what the tower wants.

        Args:
            config: The recipe's section; what it sets takes precedence.
            size: Side of the tower's square image, pixels.
            mean: The tower's mean per channel of RGB in [0, 1].
            std: The tower's standard deviation per channel of RGB in [0, 1].
            audio_size: Side of the only spectrogram that the audio tower takes (Swin); None where it
                takes any size (ViT, which resamples its position embedding).

        Raises:
            AvtuneError: If a preset is unknown, a value impossible, or the spectrogram not ``audio_size``.
        """
        audio = resolve_audio(config.audio)
        if audio_size is not None:
            check_spectrogram_size(audio, audio_size, "the audio tower")
        return cls(
            segments=config.segments,
            segment_seconds=float(config.segment_seconds),
            audio=audio,
            size=config.video.size or size,
            mean=_triple(config.video.mean or mean),
            std=_triple(config.video.std or std),
            frame_placement=config.video.placement,
        )

    def state(self) -> dict[str, Any]:
        """Everything, as values that JSON keeps exactly; :meth:`from_state` undoes it."""
        return {
            "version": STATE_VERSION,
            "segments": self.segments,
            "segment_seconds": self.segment_seconds,
            "audio": asdict(self.audio),
            "video": {
                "size": self.size,
                "mean": list(self.mean),
                "std": list(self.std),
                "placement": self.frame_placement,
            },
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Preprocessing:
        """Restore what :meth:`state` returned.

        Raises:
            AvtuneError: If ``state`` is not such a dictionary or comes from another version.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise AvtuneError(
                    f"the model's preprocessing has version {state['version']}, this avtune reads "
                    f"{STATE_VERSION}; use the avtune that trained it"
                )
            video = state["video"]
            return cls(
                segments=state["segments"],
                segment_seconds=state["segment_seconds"],
                audio=AudioPreset(**state["audio"]),
                size=video["size"],
                mean=_triple(video["mean"]),
                std=_triple(video["std"]),
                frame_placement=video["placement"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AvtuneError(
                f"the model's stored preprocessing is damaged ({error!r}); save the model again"
            ) from error

    @property
    def seconds(self) -> float:
        """Length of what one input covers."""
        return self.segments * self.segment_seconds

    @property
    def spectrogram_shape(self) -> tuple[int, int]:
        """Rows and columns of one spectrogram."""
        return self.audio.shape

    @property
    def sounds(self) -> int:
        """Spectrograms of a clip: one for each segment, or one where all segments hear the same."""
        return 1 if self.audio.placement == "clip" else self.segments

    def frame_times(self, duration: float, start: float = 0.0, rate: float = 25.0) -> list[float]:
        """When the frame of each segment is taken.

        Args:
            duration: Length of the file, seconds.
            start: Beginning of the first segment, seconds.
            rate: Frames per second of the video; only ``spread`` placement asks for it.

        Returns:
            T times in seconds; segments beyond the file's end repeat the last time before it.
        """
        return self._times(self._section(start, duration), rate)

    def frame_indices(self, count: int, duration: float, start: float = 0.0) -> list[int]:
        """Which of ``count`` extracted frames, evenly spaced over ``duration`` seconds, each segment takes.

        In ``spread`` placement these are the authors' ``int(linspace(1, count, T))``, less one.

        Returns:
            T indices from 0 to ``count - 1``, for :meth:`from_arrays`.

        Raises:
            ValueError: If ``count`` is below 1 or ``duration`` not positive.
        """
        if count < 1 or not duration > 0:
            raise ValueError(f"count={count} and duration={duration} must be positive")
        rate = count / duration
        return [min(int(time * rate), count - 1) for time in self.frame_times(duration, start, rate)]

    def sound_windows(self, samples: int, start: float = 0.0) -> list[tuple[int, int]]:
        """Which samples each segment hears, see :func:`avtune.transforms.spectrograms.sound_windows`.

        Args:
            samples: Length of the file's sound at ``audio.sample_rate``.
            start: Beginning of the first segment, seconds.
        """
        return sound_windows(self._section(start, samples / self.audio.sample_rate), samples, self.audio)

    def load(self, path: MediaFile, start: float = 0.0) -> Prepared:
        """Decode and prepare ``segments`` segments of a file.

        Args:
            path: A video or sound file.
            start: Beginning of the first segment, seconds.

        Raises:
            MediaError: If the file cannot be read, has neither video nor sound, or ends before ``start``.
        """
        info = probe(path)
        if start < 0 or (start > 0 and start >= info.duration):
            raise MediaError(
                info.path,
                f"has no second {start:g}, it lasts {info.duration:.2f} s",
                "correct the start of the clip",
            )
        section = self._section(start, info.duration)
        begin, end = self._heard(section)
        clip = decode(
            path,
            self._times(section, _rate(info.video)),
            sample_rate=self.audio.sample_rate,
            on_frame=partial(resize_frame, size=self.size),
            start=begin,
            until=end,
        )
        sound = self._sound(clip.waveform, round(begin * self.audio.sample_rate))
        return self._prepare(info.path, section, clip.frames, sound, damage_notes(clip.damage))

    def load_windows(
        self, path: MediaFile, stride_segments: int | None = None
    ) -> Iterator[tuple[float, Prepared]]:
        """Prepare a file of any length as overlapping or adjoining inputs; the file is decoded once.

        Memory holds the whole sound and one resized frame per segment.

        Args:
            path: A video or sound file.
            stride_segments: Segments between two inputs, 1 to T; None: T, so that they adjoin.

        Yields:
            Start in seconds (a whole number of segments) and the prepared clip. Only the last may overlap
            more, since it ends with the file.

        Raises:
            MediaError: If the file cannot be read or has neither video nor sound.
            ValueError: If ``stride_segments`` is not within 1 and T.
        """
        info = probe(path)
        stride = self.segments if stride_segments is None else stride_segments
        starts = section_starts(info.duration, self.segments, self.segment_seconds, stride)
        sections = [self._section(start, info.duration) for start in starts]
        times = [self._times(section, _rate(info.video)) for section in sections]
        distinct = sorted({time for of_section in times for time in of_section})
        resize = partial(resize_frame, size=self.size)
        clip = decode(path, distinct, sample_rate=self.audio.sample_rate, on_frame=resize)
        shown = None if clip.frames is None else dict(zip(distinct, clip.frames, strict=True))
        sound = self._sound(clip.waveform, 0)
        notes = damage_notes(clip.damage)
        for section, of_section in zip(sections, times, strict=True):
            frames = None if shown is None else [shown[time] for time in of_section]
            yield section.start, self._prepare(info.path, section, frames, sound, notes)

    def from_arrays(
        self,
        frames: Sequence[NDArray[np.uint8]] | None,
        waveform: NDArray[np.float32] | None,
        *,
        duration: float,
        start: float = 0.0,
        source: str | Path = "arrays",
        notes: tuple[str, ...] = (),
    ) -> Prepared:
        """Prepare a clip whose frames were extracted to images and whose sound to a wav file.

        Args:
            frames: T pictures, RGB uint8 (height, width, 3), those of :meth:`frame_indices`; None: no video.
            waveform: The whole sound, mono float32 (samples,) at ``audio.sample_rate``; None: no sound.
            duration: Length of the clip, seconds.
            start: Beginning of the first segment, seconds.
            source: What error messages call the clip.
            notes: Remarks to begin the result's with.

        Raises:
            MediaError: If there are neither frames nor sound.
            ValueError: If there are frames, but not T of them.
        """
        if frames is not None and len(frames) != self.segments:
            raise ValueError(f"{len(frames)} frames were given for {self.segments} segments")
        resized = None if frames is None else [resize_frame(frame, self.size) for frame in frames]
        section = self._section(start, duration)
        return self._prepare(Path(source), section, resized, self._sound(waveform, 0), notes)

    def _section(self, start: float, duration: float) -> Section:
        return Section(float(start), self.segments, self.segment_seconds, float(duration))

    def _times(self, section: Section, rate: float) -> list[float]:
        if self.frame_placement == "spread":
            length = section.spread_length(section.duration - section.start)
            times = spread_times(section.start, section.start + length, rate, self.segments)
            last = max((time for time in times if time < section.duration), default=section.start)
            return [min(time, last) for time in times]
        present = [middle for middle in section.middles if middle < section.duration]
        if not present:
            present = [(section.start + max(section.duration, section.start)) / 2]
        return present + [present[-1]] * (self.segments - len(present))

    def _heard(self, section: Section) -> tuple[float, float | None]:
        """The stretch of sound that a section needs, seconds; None: to the end of the file."""
        if self.audio.beyond == "loop":
            return 0.0, None
        around = self.audio.seconds + self.segment_seconds
        begin = max(section.start - around, 0.0)
        end = section.start + self.seconds + around
        return begin, None if section.duration <= end else end

    def _sound(self, waveform: NDArray[np.float32] | None, first: int) -> _Sound | None:
        """Find the mean of all the sound that was read, which the authors' code subtracts before windows are cut."""
        if waveform is None or waveform.size == 0:
            return None
        mean = float(waveform.mean(dtype=np.float64)) if self.audio.subtract_mean else 0.0
        return _Sound(torch.tensor(waveform, dtype=torch.float32), first, mean)

    def _prepare(
        self,
        path: Path,
        section: Section,
        frames: list[Tensor] | None,
        sound: _Sound | None,
        notes: tuple[str, ...],
    ) -> Prepared:
        if not frames and sound is None:
            raise MediaError(path, "has neither video nor sound", "use a file with at least one of them")
        valid = torch.tensor(section.valid)
        remarks = list(notes)
        if not valid.all():
            remarks.append(
                f"{int(valid.sum())} of {self.segments} segments exist, the file lasts "
                f"{section.duration:.2f} s; the rest is padding"
            )
        if not frames:
            remarks.append("no video")
            stacked = mean_frame(self.mean, self.size).expand(self.segments, -1, -1, -1).contiguous()
        else:
            stacked = torch.stack(frames)
        return Prepared(
            frames=stacked,
            spectrogram=self._spectrogram(section, sound, remarks),
            has_video=torch.tensor(bool(frames)),
            has_audio=torch.tensor(sound is not None),
            valid=valid,
            notes=tuple(remarks),
        )

    def _spectrogram(self, section: Section, sound: _Sound | None, remarks: list[str]) -> Tensor:
        if sound is None:
            remarks.append("no sound")
            return torch.zeros(self.sounds, *self.audio.shape)
        samples = sound.first + sound.waveform.shape[0]
        windows = sound_windows(section, samples, self.audio)[: self.sounds]
        shifted = [(first - sound.first, end - sound.first) for first, end in windows]
        if float((sound.waveform - sound.mean).abs().max()) < SILENCE_PEAK:
            remarks.append("the sound is silent")
        shortest = min(end - first for first, end in windows)
        if shortest < self.audio.frame_samples:
            remarks.append(
                f"{shortest} samples of sound are less than one frame of {self.audio.frame_samples}; "
                "silence was added"
            )
        return pictures(sound.waveform, shifted, self.audio, sound.mean)


def damage_notes(damage: Damage) -> tuple[str, ...]:
    """What was wrong with a file, in words; empty for a healthy one."""
    counted = {
        "damaged video packets": damage.video_packets_bad,
        "damaged audio packets": damage.audio_packets_bad,
        "damaged frames": damage.frames_corrupt,
        "segments that repeat the last decodable frame": damage.frames_repeated,
    }
    notes = [f"{what}: {count}" for what, count in counted.items() if count]
    if damage.audio_gap_seconds:
        notes.append(f"{damage.audio_gap_seconds:.2f} s of sound are missing")
    return (*notes, *damage.notes)


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _rate(video: VideoStream | None) -> float:
    """Frames per second of a stream; 25 where it has none to tell."""
    return 25.0 if video is None or not video.average_rate else float(video.average_rate)
