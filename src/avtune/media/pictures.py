"""Choosing the frames shown at requested times while a video is decoded once from its start."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

T = TypeVar("T")
# Requested times are floats: k / rate may fall a rounding error before the frame it names.
TIME_TOLERANCE = 1e-6
# For these FFmpeg's default conversion is fast, and what every other reader of video gives. For all others it
# comes out up to 2 of 255 too dark unless told otherwise.
USUAL_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
ACCURATE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


def quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise quarter turns, 0 to 3, that show the frame upright by its display matrix."""
    return round(frame.rotation / 90) % 4


def upright_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """The frame as it is meant to be seen.

    Args:
        frame: A decoded frame of any pixel format; alpha is dropped.
        reformatter: Kept between calls, since setting one up costs more than a small frame.

    Returns:
        Full-size RGB (height, width, 3), colour matrix and range by the frame's own tags (FFmpeg's
        default, BT.601 limited, where it has none), turned and mirrored by its display matrix.
    """
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG,
        interpolation=None if frame.format.name in USUAL_FORMATS else ACCURATE,
        threads=1,
    )
    picture = rgb.to_ndarray()
    matrix = _display_matrix(frame)
    if matrix is None:
        picture = np.rot90(picture, quarter_turns(frame))
    else:
        # The matrix sends a point (x, y) to (a x + c y, b x + d y): beside turns, mirror images.
        a, b, _, c, d = matrix[:5].astype(np.int64)
        if abs(b) > abs(a):
            picture, a, d = picture.transpose(1, 0, 2), c, b
        picture = picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    try:
        data = cast(SideDataContainer, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    except ValueError:
        # PyAV does not know some kind of side data that the frame carries, and then lists none.
        return None
    return None if data is None else np.frombuffer(bytes(data), dtype=np.int32)


class FrameSelector(Generic[T]):
    """Answers each requested time with the last frame whose presentation time is not after it.

    Frames are offered in the decoder's output order; a time before the first frame is answered by the first,
    one after the last frame by the last. Only selected frames are converted, each once.
    """

    def __init__(self, times: Sequence[float], on_frame: Callable[[NDArray[np.uint8]], T]) -> None:
        """Takes requested times in seconds in any order, and what to make of each selected picture."""
        self._on_frame = on_frame
        self._order = sorted(range(len(times)), key=times.__getitem__)
        self._times = times
        self._next = 0
        self._answers: dict[int, T] = {}
        self._reformatter = VideoReformatter()
        self._shown: VideoFrame | None = None
        self._shown_at = 0.0
        self._interval = 0.0
        self.frames_repeated = 0

    @property
    def times(self) -> list[float]:
        """The requested times, ascending."""
        return [self._times[index] for index in self._order]

    @property
    def done(self) -> bool:
        """Whether every requested time has its frame."""
        return self._next == len(self._order)

    @property
    def end(self) -> float:
        """When the last frame offered stops being shown, in seconds."""
        return self._shown_at + self._interval

    def offer(self, frame: VideoFrame, time: float | None, duration: float) -> None:
        """Takes the next decoded frame.

        Args:
            frame: The frame.
            time: Its presentation time in seconds, None if unknown: it then follows the frame before.
            duration: How long it is shown at least, as far as known, in seconds.
        """
        if self._shown is not None:
            following = self._shown_at + self._interval
            # Output order is display order: a timestamp that runs backwards is damage.
            time = max(time if time is not None else following, self._shown_at)
            count = self._next
            while count < len(self._order) and self._times[self._order[count]] + TIME_TOLERANCE < time:
                count += 1
            self.answer(count)
        self._shown = frame
        self._shown_at = time if time is not None else 0.0
        self._interval = duration

    def finish(self) -> list[T] | None:
        """Answers the times after the last frame; None if there was no frame at all."""
        if self._shown is None:
            return None
        end = self.end + TIME_TOLERANCE
        self.frames_repeated = sum(self._times[index] > end for index in self._order[self._next :])
        self.answer(len(self._order))
        return [self._answers[index] for index in range(len(self._times))]

    def restart(self) -> None:
        """Forgets all frames and answers, for a video that is decoded again."""
        self._shown, self._shown_at, self._interval = None, 0.0, 0.0
        self._next, self._answers = 0, {}

    def answer(self, count: int) -> None:
        """Answers the first ``count`` requested times, as far as they have none, with the last frame offered."""
        first, self._next = self._next, max(self._next, count)
        if self._next > first and self._shown is not None:
            answer = self._on_frame(upright_rgb(self._shown, self._reformatter))
            self._answers.update(dict.fromkeys(self._order[first : self._next], answer))
