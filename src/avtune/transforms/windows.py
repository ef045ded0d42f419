"""Which moments of a file each segment sees and hears: pure arithmetic on times and samples.

``grid`` is avtune's own placement: segment t sees the frame in its middle and hears a window centred there.
``spread`` is what the LAVISH authors' code does (and STG-CMA's after it): T windows spread evenly from the
first to the last sample, so that for ten seconds segment t begins at 0.99 t rather than t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPREAD_MARGIN_SECONDS = 0.1


@dataclass(frozen=True)
class Section:
    """The stretch of a file that one input of the model covers: ``segments`` steps from ``start`` on.

    Attributes:
        start: Beginning within the file, seconds.
        segments: Time steps, T.
        segment_seconds: Length of one time step, seconds.
        duration: Length of the whole file, seconds.
    """

    start: float
    segments: int
    segment_seconds: float
    duration: float

    @property
    def middles(self) -> list[float]:
        """Middle of each segment within the file, seconds; may lie beyond its end."""
        return [self.start + (t + 0.5) * self.segment_seconds for t in range(self.segments)]

    @property
    def valid(self) -> list[bool]:
        """Whether each segment exists: the file reaches its middle. The first always does, however short."""
        return [t == 0 or middle < self.duration for t, middle in enumerate(self.middles)]

    def spread_length(self, available: float) -> float:
        """How much of what lies behind ``start`` spread placement spreads over, seconds.

        A clip that is a little shorter or longer than the section (by half a segment at most) is spread
        over its own length, as the authors' code does; any other keeps its time axis.

        Args:
            available: Length of the picture or sound track behind ``start``, seconds.
        """
        nominal = self.segments * self.segment_seconds
        return available if abs(available - nominal) <= self.segment_seconds / 2 else nominal


def section_starts(duration: float, segments: int, segment_seconds: float, stride: int) -> list[float]:
    """Starts of the sections that cover a whole file, each a whole number of segments from the beginning.

    The last section is moved back so that it ends with the file; only a file with fewer than ``segments``
    segments gets a section that reaches beyond its end.

    Args:
        duration: Length of the file, seconds.
        segments: Time steps per section, T.
        segment_seconds: Length of one time step, seconds.
        stride: Segments between the starts of two sections, 1 to T.

    Returns:
        Starts in seconds, ascending.

    Raises:
        ValueError: If ``stride`` is not within 1 and ``segments``, which would leave gaps.
    """
    if not 1 <= stride <= segments:
        raise ValueError(
            f"stride_segments={stride} must be between 1 and the {segments} segments of an input"
        )
    # A segment exists if the file reaches its middle, as in Section.valid.
    present = max(int(np.ceil(duration / segment_seconds - 0.5)), 1)
    last = max(present - segments, 0)
    return [first * segment_seconds for first in [*range(0, last, stride), last]]


def spread_starts(samples: int, segments: int, window: int, margin: int) -> list[int] | None:
    """First samples of the windows in spread placement: ``int(linspace(0, samples - window - margin, T))``.

    Args:
        samples: Length of the sound.
        segments: Number of windows, T.
        window: Length of one window, samples.
        margin: Samples that the last window stays away from the end (the authors' 0.1 seconds).

    Returns:
        T starts, or None where the sound is not longer than window and margin together: the authors' code
        then gives every segment the whole sound.
    """
    if samples <= window + margin:
        return None
    return [int(start) for start in np.linspace(0, samples - window - margin, segments)]


def spread_indices(frames: int, segments: int) -> list[int]:
    """Frames in spread placement, counted from 0: the authors' ``int(linspace(1, frames, T))``, less one.

    Args:
        frames: Number of frames of the clip, at least 1.
        segments: Number of frames wanted, T.

    Returns:
        T ascending indices from 0 to ``frames - 1``.
    """
    return [int(index) - 1 for index in np.linspace(1, frames, segments)]


def spread_times(start: float, end: float, rate: float, segments: int) -> list[float]:
    """Times of the frames in spread placement.

    The authors pick from frames that they extracted to images; a file on disk is asked for times instead.
    With N = round((end - start) * rate) frames of equal length, frame i (from 0) is shown during
    ``[i, i + 1) * (end - start) / N``, and its middle is the time asked for.

    Args:
        start: Beginning of the stretch, seconds.
        end: End of the stretch, seconds.
        rate: Frames per second of the video.
        segments: Number of frames wanted, T.

    Returns:
        T ascending times in seconds.
    """
    frames = max(round((end - start) * rate), 1)
    interval = (end - start) / frames
    return [start + (index + 0.5) * interval for index in spread_indices(frames, segments)]


def centred_starts(middles: list[float], window: int, sample_rate: int) -> list[int]:
    """First samples of windows centred on the given times; negative ones begin before the file.

    Args:
        middles: Centres of the windows, seconds.
        window: Length of one window, samples.
        sample_rate: Samples per second.
    """
    return [round(middle * sample_rate) - window // 2 for middle in middles]
