import numpy as np
import pytest
from PIL import Image

from avtune.datasets.bandstand import CLASSES, Difficulty, make_program
from avtune.datasets.bandstand.drawing import sprites, stage
from avtune.datasets.bandstand.program import _look
from avtune.datasets.bandstand.render import prepare
from avtune.datasets.bandstand.scene import SAMPLE_RATE, SECONDS, Sound, Timbre
from avtune.datasets.bandstand.sounds import RHYTHMS, strike_times
from avtune.datasets.bandstand.soundtrack import strain


def sound(label: str, seconds: float, timbre: Timbre) -> Sound:
    return Sound(0, label, None, 0.0, seconds, (0, round(seconds)), -23.0, timbre)


def band_energies(second: np.ndarray) -> np.ndarray:
    """Mean and deviation of log energies in bands, which is what a spectrogram of one second shows."""
    frames = second[: SAMPLE_RATE // 400 * 400].reshape(-1, 400)
    power = np.abs(np.fft.rfft(frames * np.hanning(400))) ** 2
    edges = np.unique(np.geomspace(1, power.shape[1], 24).astype(int))
    energy = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-4)
    return np.concatenate([energy.mean(0), energy.std(0)])


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("position", [0.0, 0.5, 0.999])
def test_every_second_of_a_sound_holds_it_at_its_level(label: str, position: float) -> None:
    rng = np.random.default_rng(3)
    made = strain(sound(label, 4.0, Timbre(position, 1 - position, position)), rng)
    assert len(made.waveform) == 4 * SAMPLE_RATE
    assert np.isclose(10 * np.log10(np.mean(made.waveform**2)), -23.0, atol=1e-6)
    assert abs(made.waveform.mean()) < 1e-3
    assert np.abs(made.waveform[[0, -1]]).max() < 1e-3
    for second in made.waveform.reshape(4, -1):
        assert abs(10 * np.log10(np.mean(second**2)) + 23.0) < 5
    rate = len(made.onsets) / 4
    expected = 1 / RHYTHMS[label].interval(position)
    assert abs(rate - expected) < 0.25 * expected + 0.3
    assert np.all(np.diff(made.onsets) > 0)
    assert 0 <= made.onsets[0] < 0.5


@pytest.mark.parametrize("label", CLASSES)
def test_the_shortest_possible_sound_can_be_made(label: str) -> None:
    made = strain(sound(label, 0.8, Timbre(0.5, 0.5, 0.0)), np.random.default_rng(0))
    assert np.isfinite(made.waveform).all()
    assert len(made.waveform) == int(0.8 * SAMPLE_RATE)
    assert len(made.onsets) >= 1


def test_sounds_of_unheard_pitches_are_recognised_from_one_second() -> None:
    rng = np.random.default_rng(1)

    def draw(label: str, pitch: float) -> np.ndarray:
        made = strain(sound(label, 1.0, Timbre(pitch, *rng.random(2))), rng)
        floor = 10 ** (-48 / 20) * rng.normal(0, 1, SAMPLE_RATE)
        return band_energies(made.waveform + floor)

    known = np.array(
        [[draw(label, pitch) for pitch in (0.1, 0.3, 0.45, 0.6, 0.75, 0.95)] for label in CLASSES]
    )
    tests = np.array([[draw(label, pitch) for pitch in (0.165, 0.5, 0.835)] for label in CLASSES])
    scale = known.reshape(-1, known.shape[-1]).std(0)
    distances = np.linalg.norm((tests[:, :, None, None] - known[None, None]) / scale, axis=-1)
    guessed = distances.min(-1).argmin(-1)
    assert (guessed == np.arange(len(CLASSES))[:, None]).mean() >= 0.9


def test_shapes_are_told_apart_by_their_outlines_alone() -> None:
    rng = np.random.default_rng(2)

    def outline(label: str) -> np.ndarray:
        look = _look(rng, 0, Difficulty())
        drawing = sprites(label, look, bool(rng.random() < 0.5), 160, [look.rotation])[0]
        image = Image.fromarray(drawing[..., 3])
        if look.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image.resize((24, 24)), float).reshape(-1)

    known = np.array([[outline(label) for _ in range(16)] for label in CLASSES])
    tests = np.array([[outline(label) for _ in range(8)] for label in CLASSES])
    distances = np.linalg.norm(tests[:, :, None, None] - known[None, None], axis=-1)
    guessed = distances.min(-1).argmin(-1)
    assert (guessed == np.arange(len(CLASSES))[:, None]).mean() >= 0.9


@pytest.mark.parametrize("label", CLASSES)
def test_a_drawing_fills_its_size_and_moves_when_struck(label: str) -> None:
    rng = np.random.default_rng(0)
    look = _look(rng, 0, Difficulty())
    rest, turned = sprites(label, look, False, 160, [0.0, 90.0])
    struck = sprites(label, look, True, 160, [0.0])[0]
    assert rest.shape == struck.shape == (round(160 * look.size), round(160 * look.size), 4)
    assert turned.shape[:2] == rest.shape[:2]
    assert 0.2 < (rest[..., 3] >= 128).mean() < 0.85
    changed = np.abs(rest.astype(int) - struck.astype(int)).max(-1) > 60
    assert changed.mean() > 0.01


def test_a_stage_is_quiet_enough_not_to_hide_instruments() -> None:
    pictures = [stage(np.random.default_rng(seed), 96, 7).astype(float) for seed in range(20)]
    assert all(picture.std((0, 1)).max() < 45 for picture in pictures)
    assert np.std([picture.mean() for picture in pictures]) > 15


def test_strikes_cover_the_whole_clip_in_one_rhythm_and_keep_what_is_heard() -> None:
    for label in CLASSES:
        rng = np.random.default_rng(5)
        played = [4.0 + RHYTHMS[label].interval(0.5) * step for step in range(6)]
        times = strike_times(label, 0.5, played, rng)
        assert set(np.round(played, 4)) <= set(times)
        gaps = np.diff(times)
        interval, unevenness = RHYTHMS[label].interval(0.5), RHYTHMS[label].unevenness
        assert gaps.min() > interval * (1 - unevenness) - 1e-3
        assert gaps.max() < interval * (1 + unevenness) + 1e-3
        assert times[0] < 2 * interval
        assert times[-1] > SECONDS - 2 * interval
        silent = strike_times(label, 0.5, [], rng)
        assert abs(len(silent) - len(times)) <= 4


def test_moving_players_are_struck_at_their_sound_s_onsets_and_silent_ones_move_too() -> None:
    found = {"player": 0, "silent": 0, "still player": 0}
    for index in range(12):
        rendering = prepare(make_program(9, index), Difficulty(), 32, 10)
        for instrument in rendering.program.instruments:
            player = rendering.program.player(instrument.number)
            strikes = rendering.strikes.get(instrument.number, [])
            assert bool(strikes) == instrument.animated
            if player is None:
                found["silent"] += bool(strikes)
            elif strikes:
                assert set(rendering.onsets[player.number]) <= set(strikes)
                found["player"] += 1
            else:
                found["still player"] += 1
    assert min(found.values()) > 0
