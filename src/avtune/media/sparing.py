"""The frames at requested times without decoding those that nothing shown depends on."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from avtune.media.pictures import TIME_TOLERANCE, FrameSelector
from avtune.media.source import Source, decode_packet

# FFmpeg's names for what a decoder may leave out: nothing; pictures that no other refers to; every picture. Whatever
# it leaves out, it reads the parameter sets in the packet.
Skip = Literal["DEFAULT", "NONREF", "ALL"]
# Longer steps between packets than this many usual ones may be lost pictures, and how a decoder fills their place
# depends on all that it saw before.
LONGEST_STEP = 1.5
# A stream with fewer key frames than this keeps no more packets waiting for one.
MOST_PACKETS_WAITING = 1000


class NeedsEveryFrame(Exception):
    """Only decoding every frame from the start gives the frames of this file for certain."""


@dataclass
class _Wanted:
    """The timestamp of a shown frame, and how many times are answered for certain up to and with it."""

    timestamp: int
    answers: int


@dataclass(frozen=True)
class _Candidate:
    """A packet with its presentation time and duration; ``shows`` is False where an edit list hides its frame."""

    packet: Packet[Any]
    timestamp: int
    duration: int
    shows: bool


class PacketPlan:
    """Tells for each packet of an H.264 stream, as soon as it is certain, what its decoder may skip.

    A requested time is answered by the frame with the last presentation time not after it, which the packets alone
    tell: none has a presentation time before its decoding time, so once the decoding times have passed a requested
    time, its frame is known. Of the others, those that no picture refers to can be skipped, and all between the
    last shown one and the next IDR picture, over which nothing refers.
    """

    def __init__(
        self,
        limits: Sequence[int],
        usual_step: float,
        reorders: bool,
        starts_afresh: Callable[[Packet[Any]], bool],
    ) -> None:
        """Plans for requested times.

        Args:
            limits: For each requested time, ascending, the last timestamp not after it.
            usual_step: Timestamps from one frame to the next.
            reorders: Whether frames may be shown in another order than they are decoded in.
            starts_afresh: Whether a key packet is an IDR picture.
        """
        self._limits = limits
        self._usual_step = usual_step
        self._unordered = reorders
        # Without B-frames all pictures are referred to, unless one is damaged into seeming otherwise.
        self._unshown: Skip = "NONREF" if reorders else "DEFAULT"
        self._starts_afresh = starts_afresh
        self._settled = 0
        self._timestamps: list[int] = []
        self._undecided: deque[_Candidate] = deque()
        self._waiting: list[Packet[Any]] = []
        self._shown: _Candidate | None = None
        self._decoding_time: int | None = None
        self._even = 0
        self.wanted: deque[_Wanted] = deque()
        self.end = 0

    @property
    def complete(self) -> bool:
        """Whether the packets told so far suffice for all requested times."""
        return self._settled == len(self._limits)

    def push(self, packet: Packet[Any]) -> list[tuple[Packet[Any], Skip]]:
        """Takes the next packet in decoding order; returns those to be decoded now.

        Raises:
            NeedsEveryFrame: Timestamps are missing, contradict each other or have gaps, or the packet is damaged.
        """
        candidate = self._check(packet)
        if candidate.shows:
            insort(self._timestamps, candidate.timestamp)
            duration = candidate.duration or round(self._usual_step)
            self.end = max(self.end, candidate.timestamp + duration)
        self._undecided.append(candidate)
        self._settle()
        return self._decide()

    def finish(self) -> list[tuple[Packet[Any], Skip]]:
        """What is to be decoded when no packet follows.

        Times that the last frame answers are left for the selector to finish: they may lie after its end.
        """
        while self._timestamps and not self.complete:
            answer = self._answer(self._settled)
            self._refuse_gaps(answer)
            self._want(answer, certain=answer != self._timestamps[-1])
        return self._decide()

    def _check(self, packet: Packet[Any]) -> _Candidate:
        before, self._decoding_time = self._decoding_time, packet.dts
        if packet.is_corrupt or packet.pts is None or packet.dts is None or packet.pts < packet.dts:
            raise NeedsEveryFrame
        if before is None:
            # Before the first IDR picture a decoder guesses when its pictures are good.
            if not self._starts_afresh(packet):
                raise NeedsEveryFrame
        elif not 0 < packet.dts - before <= LONGEST_STEP * self._usual_step:
            raise NeedsEveryFrame
        place = bisect_right(self._timestamps, packet.pts)
        self._unordered &= place == len(self._timestamps)
        if place and self._timestamps[place - 1] == packet.pts:
            raise NeedsEveryFrame
        return _Candidate(packet, packet.pts, packet.duration or 0, shows=not packet.is_discard)

    def _settle(self) -> None:
        """Finds the answers that no later packet can change: all later ones are presented after this one's dts."""
        horizon = self._decoding_time
        assert horizon is not None
        while not self.complete and self._timestamps and horizon > self._limits[self._settled]:
            answer = self._answer(self._settled)
            if answer > horizon:
                return
            self._refuse_gaps(answer)
            self._want(answer)

    def _refuse_gaps(self, answer: int) -> None:
        """Presentation times with a gap before the frame after the answer may be wrong ones, which hide its order."""
        end = bisect_right(self._timestamps, answer) + 1
        for before, after in pairwise(self._timestamps[self._even : end]):
            if after - before > LONGEST_STEP * self._usual_step:
                raise NeedsEveryFrame
        self._even = max(end - 2, 0)

    def _answer(self, index: int) -> int:
        return self._timestamps[max(bisect_right(self._timestamps, self._limits[index]) - 1, 0)]

    def _want(self, timestamp: int, certain: bool = True) -> None:
        if not self.wanted or self.wanted[-1].timestamp != timestamp:
            self.wanted.append(_Wanted(timestamp, self._settled))
        self._settled += 1
        if certain:
            self.wanted[-1].answers = self._settled

    def _decide(self) -> list[tuple[Packet[Any], Skip]]:
        """Takes packets off the queue that cannot become the answer to a time not yet settled."""
        first_possible = None if self.complete or not self._timestamps else self._answer(self._settled)
        wanted = {frame.timestamp for frame in self.wanted}
        told: list[tuple[Packet[Any], Skip]] = []
        while self._undecided:
            candidate = self._undecided[0]
            if candidate.shows and first_possible is not None and candidate.timestamp >= first_possible:
                break
            self._undecided.popleft()
            packet, shown = candidate.packet, candidate.shows and candidate.timestamp in wanted
            if shown or self._may_be_second_field(candidate):
                told += self._release(self._unshown)
                told.append((packet, "DEFAULT"))
            else:
                if packet.is_keyframe and self._waiting and self._starts_afresh(packet):
                    told += self._release("ALL")
                self._waiting.append(packet)
            self._shown = candidate if shown else None
        if len(self._waiting) > MOST_PACKETS_WAITING:
            told += self._release(self._unshown)
        # Files that do not know the order of their frames, such as AVI, number them as they are decoded.
        if told and self._unordered:
            raise NeedsEveryFrame
        return told

    def _release(self, skip: Skip) -> list[tuple[Packet[Any], Skip]]:
        waiting, self._waiting = self._waiting, []
        return [(packet, skip) for packet in waiting]

    def _may_be_second_field(self, candidate: _Candidate) -> bool:
        """Whether this may be the other half of the shown picture, which some containers keep apart."""
        if self._shown is None:
            return False
        step = candidate.timestamp - self._shown.timestamp
        return not self._shown.duration or 0 < step < 2 * self._shown.duration


class SparingVideo:
    """Decodes what the requested times need of an H.264 stream and offers the shown frames to a selector.

    Every frame it offers is the one that decoding the whole stream gives, bit for bit. Where that is not certain,
    because of timestamps or of any error of the decoder, it stops with :class:`NeedsEveryFrame`.
    """

    @staticmethod
    def suits(stream: AvVideoStream, selector: FrameSelector[Any]) -> bool:
        """Whether it pays and is possible: a decoder that is known to skip exactly, and even steps in time."""
        if stream.codec_context.codec.name != "h264" or selector.done or not stream.average_rate:
            return False
        index = [entry.timestamp for entry in stream.index_entries]
        if len(index) != stream.frames:
            return True
        longest = LONGEST_STEP * _usual_step(stream)
        return all(0 < after - before <= longest for before, after in pairwise(index))

    def __init__(self, source: Source, stream: AvVideoStream, selector: FrameSelector[Any]) -> None:
        """Takes the open file, its video stream, and where the shown frames go.

        Raises:
            NeedsEveryFrame: The stream's header is damaged, so that its packets cannot be told apart.
        """
        try:
            self._idr_only = BitStreamFilterContext("filter_units=pass_types=5", stream)
        except av.FFmpegError:
            raise NeedsEveryFrame from None
        self._source = source
        self._stream = stream
        self._selector = selector
        self._context = stream.codec_context
        # What the decoder puts in the place of damage may depend on pictures that were skipped.
        self._context.options = {**self._context.options, "err_detect": "explode"}
        limits = [source.last_timestamp(time + TIME_TOLERANCE, stream) for time in selector.times]
        self._plan = PacketPlan(limits, _usual_step(stream), self._context.has_b_frames, self._is_idr)
        self._skip: Skip = "DEFAULT"
        self._last: int | None = None
        self.frames_decoded = 0

    @property
    def end(self) -> float:
        """When the last frame stops being shown, decoded or not, in seconds."""
        return self._source.seconds(self._plan.end, self._stream) or 0.0

    def take(self, packet: Packet[Any] | None) -> None:
        """Takes the next packet in decoding order, or None at the end.

        Raises:
            NeedsEveryFrame: The frames cannot be given for certain.
        """
        for ready, skip in self._plan.finish() if packet is None else self._plan.push(packet):
            if skip != self._skip:
                self._context.skip_frame = self._skip = skip
            self._feed(ready)
        if packet is None or self._plan.complete:
            # To the last: a frame that is shown after the wanted ones, and is damaged, may be what they refer to.
            while self._feed(None):
                pass
            if self._plan.wanted:
                raise NeedsEveryFrame

    def _feed(self, packet: Packet[Any] | None) -> bool:
        frames, bad = decode_packet(self._stream, packet)
        if bad:
            raise NeedsEveryFrame
        for frame in frames:
            self._deliver(frame)
        return bool(frames)

    def _deliver(self, frame: VideoFrame) -> None:
        if frame.is_corrupt or frame.pts is None or (self._last is not None and frame.pts <= self._last):
            raise NeedsEveryFrame
        self._last = frame.pts
        self.frames_decoded += 1
        wanted = self._plan.wanted
        if not wanted or frame.pts < wanted[0].timestamp:
            return
        if frame.pts > wanted[0].timestamp:
            raise NeedsEveryFrame
        time, shown_for = (
            self._source.seconds(frame.pts, self._stream),
            self._source.shown_for(frame, self._stream),
        )
        self._selector.offer(frame, time, shown_for)
        self._selector.answer(wanted.popleft().answers)

    def _is_idr(self, packet: Packet[Any]) -> bool:
        try:
            # A copy, because the filter takes the packet away.
            return bool(self._idr_only.filter(Packet(bytes(packet))))
        except av.FFmpegError:
            raise NeedsEveryFrame from None


def _usual_step(stream: AvVideoStream) -> float:
    assert stream.average_rate is not None
    assert stream.time_base is not None
    return float(1 / (stream.average_rate * stream.time_base))
