"""From a scene program to pictures, sound and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avtune.datasets.bandstand import drawing
from avtune.datasets.bandstand.scene import SECONDS, Difficulty, Instrument, Program, generator
from avtune.datasets.bandstand.sounds import strike_times
from avtune.datasets.bandstand.soundtrack import mix

Picture = NDArray[np.uint8]

_ENTRANCE_SECONDS = 0.25
_STRUCK_SECONDS = 0.1
_VISIBLE_ALPHA = 128
# Rotations prepared on either side of the middle one.
_TURNS = 2


@dataclass(frozen=True)
class _Pose:
    """One pose of one instrument, ready to be laid over the stage."""

    colour: NDArray[np.uint16]
    alpha: NDArray[np.uint16]


@dataclass(frozen=True)
class Rendering:
    """One clip before it is encoded; frames are made as they are asked for.

    Attributes:
        program: The scene.
        size: Side of the picture, pixels.
        rate: Frames per second.
        waveform: The soundtrack, float32 (160000,) at 16 kHz, in [-1, 1].
        onsets: Per number of a sound, when it is struck, seconds.
        strikes: Per number of an animated instrument, when it is seen to be struck, seconds.
    """

    program: Program
    size: int
    rate: float
    waveform: NDArray[np.float32]
    onsets: dict[int, list[float]]
    strikes: dict[int, list[float]]
    _stage: Picture
    _poses: dict[int, tuple[list[_Pose], list[_Pose]]]

    def frames(self) -> Iterator[Picture]:
        """All frames in order, RGB (size, size, 3); frame k shows the time k / rate."""
        for number in range(round(SECONDS * self.rate)):
            yield self.frame(number / self.rate)

    def frame(self, time: float) -> Picture:
        """The picture at a time in seconds, RGB (size, size, 3)."""
        return self._compose(time)[0]

    def instances(self, second: int) -> Picture:
        """Which instrument each pixel belongs to in the frame in the middle of a second.

        Args:
            second: 0 to 9.

        Returns:
            uint8 (size, size): 0 for the stage, ``number + 1`` for the frontmost instrument there.
        """
        return self._compose(self.middle(second))[1]

    def mask(self, second: int) -> Picture:
        """The pixels of everything that is seen and sounds, in the frame in the middle of a second.

        Args:
            second: 0 to 9.

        Returns:
            uint8 (size, size), 255 on sounding instruments, else 0.
        """
        numbers = [number + 1 for number in self.program.sounding(second)]
        return np.where(np.isin(self.instances(second), numbers), 255, 0).astype(np.uint8)

    def middle(self, second: int) -> float:
        """Time of the frame that is shown in the middle of a second."""
        return math.floor((second + 0.5) * self.rate + 1e-9) / self.rate

    def _compose(self, time: float) -> tuple[Picture, Picture]:
        picture = self._stage.copy()
        owner = np.zeros(picture.shape[:2], dtype=np.uint8)
        for instrument in self.program.instruments:
            presence = _presence(instrument, time)
            if presence == 0:
                continue
            struck = _struck(self.strikes.get(instrument.number, []), time)
            pose = self._poses[instrument.number][int(struck)][_turn(instrument, time)]
            _lay(
                picture,
                owner,
                pose,
                *_position(instrument, time, presence, self.size, pose),
                instrument,
                presence,
            )
        return picture, owner


def prepare(program: Program, difficulty: Difficulty, size: int, rate: float) -> Rendering:
    """Draw what a clip's frames are composed of, and make its sound.

    Args:
        program: The scene.
        difficulty: The one that the program was drawn with.
        size: Side of the picture, pixels.
        rate: Frames per second.
    """
    rng = generator(program.seed, program.index, "look")
    waveform, onsets = mix(program, generator(program.seed, program.index, "sound"))
    backdrop = drawing.stage(rng, size, difficulty.clutter)
    poses, strikes = {}, {}
    for instrument in program.instruments:
        look = instrument.look
        turned = [look.rotation + look.rocking * step / _TURNS for step in range(-_TURNS, _TURNS + 1)]
        rest, struck = (
            [_pose(sprite) for sprite in drawing.sprites(instrument.label, look, moment, size, turned)]
            for moment in (False, True)
        )
        poses[instrument.number] = rest, struck
        player = program.player(instrument.number)
        rhythm = float(rng.random()) if player is None else player.timbre.rhythm
        played = [] if player is None else onsets[player.number]
        if instrument.animated:
            strikes[instrument.number] = strike_times(instrument.label, rhythm, played, rng)
    return Rendering(program, size, rate, waveform, onsets, strikes, backdrop, poses)


def _pose(sprite: Picture) -> _Pose:
    wide = sprite.astype(np.uint16)
    alpha = wide[..., 3:]
    return _Pose(wide[..., :3] * alpha, alpha)


def _presence(instrument: Instrument, time: float) -> float:
    """How far an instrument has come in: 0 away, 1 there."""
    # Times are multiples of the frame interval; rounding keeps 2.3 * 10 / 10 on its side of a boundary.
    if not instrument.start - 1e-9 <= time < instrument.end - 1e-9:
        return 0.0
    if instrument.look.entrance == "cut":
        return 1.0
    since = time - instrument.start if instrument.start > 0 else _ENTRANCE_SECONDS
    until = instrument.end - time if instrument.end < SECONDS else _ENTRANCE_SECONDS
    return min(1.0, max(0.1, min(since, until) / _ENTRANCE_SECONDS))


def _turn(instrument: Instrument, time: float) -> int:
    """Which of the prepared rotations is nearest to the rocking at a time."""
    period = 1.3 * instrument.look.sway_period
    return _TURNS + round(_TURNS * math.sin(2 * math.pi * time / period + instrument.look.phase))


def _struck(strikes: list[float], time: float) -> bool:
    return any(strike - 1e-9 <= time < strike + _STRUCK_SECONDS - 1e-9 for strike in strikes)


def _position(
    instrument: Instrument, time: float, presence: float, size: int, pose: _Pose
) -> tuple[int, int]:
    """Row and column of the sprite's top left corner, which may lie outside the picture."""
    look = instrument.look
    turn = 2 * math.pi * time / look.sway_period + look.phase
    x = look.x + look.sway[0] * math.sin(turn)
    y = look.y + look.sway[1] * math.sin(turn)
    y -= look.bounce * abs(math.sin(math.pi * look.bounce_rate * time + look.phase))
    if look.entrance == "slide":
        x += (1 - presence) * (0.8 if look.x > 0.5 else -0.8)
    height, width = pose.alpha.shape[:2]
    return round(y * size - height / 2), round(x * size - width / 2)


def _lay(
    picture: Picture,
    owner: Picture,
    pose: _Pose,
    top: int,
    left: int,
    instrument: Instrument,
    presence: float,
) -> None:
    """Lay a sprite over the picture and note whose pixels these are now, both in place."""
    side = picture.shape[0]
    height, width = pose.alpha.shape[:2]
    rows = slice(max(top, 0), min(top + height, side))
    columns = slice(max(left, 0), min(left + width, side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    alpha, colour = pose.alpha[inner], pose.colour[inner]
    if instrument.look.entrance == "fade" and presence < 1:
        strength = round(presence * 256)
        alpha = (alpha.astype(np.uint32) * strength // 256).astype(np.uint16)
        colour = (colour.astype(np.uint32) * strength // 256).astype(np.uint16)
    behind = picture[rows, columns]
    picture[rows, columns] = ((behind * (255 - alpha) + colour + 127) // 255).astype(np.uint8)
    owner[rows, columns][alpha[..., 0] >= _VISIBLE_ALPHA] = instrument.number + 1
