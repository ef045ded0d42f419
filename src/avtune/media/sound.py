"""Sound of any layout and rate as one mono track on the clip's clock."""

from fractions import Fraction

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.filter import Graph
from numpy.typing import NDArray

# A smaller step between timestamps is no gap: Matroska rounds to 1 ms, and Vorbis is up to half a block (11 ms)
# off where it changes its block size. One lost packet is 20 ms or more in the usual codecs.
TIMESTAMP_JITTER = 0.015
# Timestamps further beyond the declared end, or running further back, are damaged themselves.
CREDIBLE_OVERRUN = 1.0
CREDIBLE_GAP_WITHOUT_DURATION = 60.0
# Frames are resampled this many samples at a time; one by one, the calls cost more than the arithmetic.
SAMPLES_AT_ONCE = 16384


class MonoTrack:
    """Collects decoded sound, resampled to mono, each piece at the place its timestamp says.

    FFmpeg's resampler mixes down (weights of the layout, normalised so that no mix exceeds full scale).
    Gaps are silence. Sample 0 is at time ``start`` of the clip's clock.
    """

    def __init__(
        self, sample_rate: int, start: float, until: float | None, declared_duration: float | None
    ) -> None:
        """Takes the output rate in Hz and the window [start, until) of the clip's clock to keep."""
        self._rate = sample_rate
        self._start = Fraction(start)
        self._until = until
        self._window = None if until is None else round((Fraction(until) - self._start) * sample_rate)
        self._declared = declared_duration
        self._pieces: list[tuple[int, NDArray[np.float32]]] = []
        self._resampler: AudioResampler | None = None
        self._mean: Graph | None = None
        self._waiting = AudioFifo()
        self._format: tuple[str, str, int] | None = None
        self._run_start = Fraction(0)
        self._run_samples = 0
        self._cursor = 0
        self.gap_seconds = 0.0
        self.timestamps_ignored = 0

    @property
    def end(self) -> float:
        """The end of the sound so far, in seconds of the clip's clock."""
        if self._format is None:
            return 0.0
        start, rate = self._run_start, self._format[2]
        # Whole numbers: every frame asks, and Fractions are slow.
        return (start.numerator * rate + self._run_samples * start.denominator) / (start.denominator * rate)

    @property
    def done(self) -> bool:
        """Whether the window is full, with what the resampler still holds back."""
        return self._until is not None and self.end > self._until + 0.1

    def offer(self, frame: AudioFrame, time: Fraction | None) -> None:
        """Takes the next decoded frame and its time in seconds; if None, it follows the one before."""
        if frame.samples == 0 or frame.sample_rate <= 0:
            return
        described = (frame.format.name, frame.layout.name, frame.sample_rate)
        place = self._place(time)
        if described != self._format or place is not None:
            following = Fraction(self.end) if place is None else place
            self._close_run()
            self._format, self._run_start, self._run_samples = described, following, 0
            self._cursor = round((following - self._start) * self._rate)
        self._run_samples += frame.samples
        # The queue takes frames with timestamps only where they have no gap at all.
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples >= SAMPLES_AT_ONCE:
            self._resample_waiting()

    def finish(self) -> NDArray[np.float32] | None:
        """The waveform (samples,), float32, full scale 1; None if there was no sound at all."""
        if self._format is None:
            return None
        self._close_run()
        # Silence before sound that begins after the window is still the window's content.
        stop = max([place + len(piece) for place, piece in self._pieces] + [self._cursor])
        if self._window is not None:
            stop = min(stop, self._window)
        waveform = np.zeros(max(stop, 0), dtype=np.float32)
        for place, piece in self._pieces:
            waveform[place : place + len(piece)] = piece
        return np.nan_to_num(waveform, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

    def _place(self, time: Fraction | None) -> Fraction | None:
        """Where a new run must start for this frame, None if it goes on where the last one ended."""
        if self._format is None:
            return time if time is not None and self._credible(float(time)) else Fraction(0)
        if time is None:
            return None
        step = float(time) - self.end
        if abs(step) <= TIMESTAMP_JITTER:
            return None
        if step < -CREDIBLE_OVERRUN or not self._credible(float(time)):
            self.timestamps_ignored += 1
            return None
        self.gap_seconds += max(step, 0.0)
        return time

    def _credible(self, time: float) -> bool:
        latest = (
            self.end + CREDIBLE_GAP_WITHOUT_DURATION
            if self._declared is None
            else self._declared + CREDIBLE_OVERRUN
        )
        return time <= latest

    def _mix(self, frame: AudioFrame) -> list[AudioFrame]:
        if self._resampler is None:
            self._resampler = self._new_resampler()
            self._mean = None
        if self._mean is None:
            try:
                return self._resampler.resample(frame)
            except av.FFmpegError:
                # No weights are known for some layouts (ambisonics): the mean of all channels then.
                self._mean = _mean_of_channels(frame)
                self._resampler = self._new_resampler()
        self._mean.push(frame)
        mono = self._mean.pull()
        assert isinstance(mono, AudioFrame)
        return self._resampler.resample(mono)

    def _new_resampler(self) -> AudioResampler:
        return AudioResampler(
            format="fltp", layout="mono", rate=self._rate, options={"rematrix_maxval": "1.0"}
        )

    def _resample_waiting(self) -> None:
        frame = self._waiting.read()
        if frame is not None:
            self._collect(self._mix(frame))

    def _close_run(self) -> None:
        self._resample_waiting()
        if self._resampler is not None:
            # Where nothing had to be converted, PyAV answers the end with [None].
            self._collect([frame for frame in self._resampler.resample(None) if frame is not None])
        self._resampler, self._waiting = None, AudioFifo()

    def _collect(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0]
            first, last = self._cursor, self._cursor + len(samples)
            self._cursor = last
            kept = samples[
                max(0, -first) : len(samples) if self._window is None else max(0, self._window - first)
            ]
            if len(kept):
                self._pieces.append((max(first, 0), kept))


def _mean_of_channels(frame: AudioFrame) -> Graph:
    """A filter from frames like this one to mono, the mean of all channels."""
    graph = Graph()
    channels = frame.layout.nb_channels
    weights = "+".join(f"{1 / channels:.9f}*c{channel}" for channel in range(channels))
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=Fraction(1, frame.sample_rate),
        ),
        graph.add("pan", f"mono|c0={weights}"),
        graph.add("abuffersink"),
    ).configure()
    return graph
