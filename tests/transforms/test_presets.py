import json
from dataclasses import replace
from pathlib import Path

import pytest

from avtune.config import AudioInput
from avtune.errors import AvtuneError
from avtune.transforms import AUDIO_PRESETS, check_spectrogram_size, resolve_audio
from avtune.transforms.presets import stated_audio

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

# (mels, shift in ms, seconds, frames of a full window, steps, mean, divisor), from the authors' code.
PAPERS = {
    "ave_swin": (192, 5.2, 1.0, 188, 192, -4.98479557, 2 * 3.70797801),
    "ave_vit": (128, 10.0, 1.0, 98, 102, -4.1426, 2 * 3.2001),
    "avs": (192, 10.0, 1.0, 98, 192, -5.21053171, 2 * 3.59183145),
    "avqa": (192, 10.0, 1.95, 193, 192, -5.38533306, 2 * 3.59286380),
    "stg_cma_ave_clip": (128, 10.0, 1.0, 98, 102, -4.1426, 2 * 3.2001),
    "stg_cma_ave_swin": (224, 4.4, 1.0, 223, 224, -4.1426, 2 * 3.2001),
    "stg_cma_avs": (224, 4.4, 1.95, 441, 224, -5.66963, 2 * 3.94838),
    "stg_cma_avqa": (224, 4.4, 1.95, 441, 224, -5.21439, 2 * 3.86991),
    "copl_ave": (192, 5.2, 1.0, 188, 192, -4.98479557, 2 * 3.70797801),
    "copl_avs": (192, 10.0, 1.0, 98, 192, -5.21053171, 2 * 3.59183145),
    "copl_avqa": (192, 10.0, 1.95, 193, 192, -5.38533306, 2 * 3.59286380),
    "ma_avt_ave": (224, 4.4, 1.0, 223, 224, -4.1426, 2 * 3.2001),
    "cav_mae": (128, 10.0, 10.255, 1024, 1024, -5.081, 4.4849),
    "avsiam": (128, 10.0, 10.255, 1024, 1024, -5.081, 4.4849),
    "ast": (128, 10.0, 10.255, 1024, 1024, -4.2677393, 2 * 4.5689974),
    "ast_second": (128, 10.0, 1.0, 98, 102, -4.2677393, 2 * 4.5689974),
}
# (front end, samples per second, samples of a frame, of a shift, heard, computed on, bands, frames).
OTHER_FRONT_ENDS = {
    "ma_avt_vggsound": ("log_stft", 16000, 446, 358, 80000, 80000, 224, 224),
    "ma_avt_crema_d": ("log_stft", 22050, 447, 296, 66150, 66150, 224, 224),
    "htsat": ("librosa_log_mel", 32000, 1024, 320, 320000, 320000, 64, 1001),
    "dg_sct": ("librosa_log_mel", 32000, 1024, 320, 32000, 320000, 64, 1001),
}


def test_the_table_names_every_preset_but_our_own():
    assert set(AUDIO_PRESETS) == {*PAPERS, *OTHER_FRONT_ENDS, "nano"}


@pytest.mark.parametrize("name", OTHER_FRONT_ENDS)
def test_presets_with_another_front_end_have_the_authors_numbers(name):
    preset = AUDIO_PRESETS[name]
    assert OTHER_FRONT_ENDS[name] == (
        preset.front_end,
        preset.sample_rate,
        preset.frame_samples,
        preset.shift_samples,
        preset.window_samples,
        preset.tiled_samples,
        preset.mels,
        preset.real_steps,
    )
    assert preset.steps == preset.real_steps
    # What the front end computes is not shifted or scaled any further.
    assert (preset.mean, 2 * preset.std, preset.subtract_mean) == (0.0, 1.0, False)


def test_all_other_presets_hear_kaldi_log_mel_of_16_khz():
    for name in {*PAPERS, "nano"}:
        preset = AUDIO_PRESETS[name]
        assert (preset.front_end, preset.sample_rate, preset.frame_samples) == ("kaldi_log_mel", 16000, 400)
        assert (preset.beyond, preset.tile_seconds) == ("silence", None)


@pytest.mark.parametrize("name", PAPERS)
def test_presets_have_the_authors_numbers(name):
    preset = AUDIO_PRESETS[name]
    assert PAPERS[name] == (
        preset.mels,
        preset.shift_ms,
        preset.seconds,
        preset.real_steps,
        preset.steps,
        preset.mean,
        2 * preset.std,
    )


def test_which_presets_pad_first_and_which_lie_on_their_side():
    lying = {name for name, preset in AUDIO_PRESETS.items() if preset.rows == "mel"}
    padding_first = {name for name, preset in AUDIO_PRESETS.items() if preset.pad == "before_normalising"}
    assert padding_first == {"cav_mae", "avsiam", "ast", "ast_second"}
    assert lying == padding_first | {"ma_avt_vggsound", "ma_avt_crema_d"}
    assert AUDIO_PRESETS["cav_mae"].shape == (128, 1024)
    assert AUDIO_PRESETS["ave_vit"].shape == (102, 128)


@pytest.mark.parametrize("name", AUDIO_PRESETS)
def test_what_a_recipe_states_can_be_told_from_the_result(name):
    assert stated_audio(AUDIO_PRESETS[name]) == AudioInput(preset=name)
    own = AudioInput(preset=name, placement="spread", seconds=3.0, std=2.25)
    assert resolve_audio(stated_audio(resolve_audio(own))) == resolve_audio(own)
    with pytest.raises(AvtuneError, match=r"another version \(somewhere else\)"):
        stated_audio(replace(AUDIO_PRESETS[name], source="somewhere else"))


def test_nano_fills_its_square_without_padding():
    nano = AUDIO_PRESETS["nano"]
    assert nano.real_steps == nano.steps == nano.mels == 64
    assert nano.seconds == 1.0
    assert nano.placement == "grid"


def test_nano_has_the_measured_mean_and_deviation():
    measured = json.loads((RESULTS / "nano_log_mel_statistics.json").read_text())
    nano = AUDIO_PRESETS["nano"]
    assert (nano.mean, nano.std) == (round(measured["mean"], 1), round(measured["std"], 1))


def test_fields_of_the_recipe_override_the_preset():
    audio = resolve_audio(AudioInput(preset="ave_swin", mean=-1.5, placement="grid", mels=192))
    assert (audio.mean, audio.placement, audio.std, audio.steps) == (-1.5, "grid", 3.70797801, 192)
    assert audio.source.endswith("own mean, placement")
    assert resolve_audio(AudioInput(preset="ave_swin")) is AUDIO_PRESETS["ave_swin"]


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (AudioInput(preset="ave_swim"), "did you mean ave_swin"),
        (AudioInput(preset="?"), "choose one of nano, ave_swin"),
        (AudioInput(mels=0), "input.audio.mels is 0"),
        (AudioInput(std=0.0), "input.audio.std is 0.0"),
        (AudioInput(shift_ms=0.01), "input.audio.shift_ms is 0.01"),
        (AudioInput(seconds=0.02), "input.audio.seconds is 0.02"),
        (AudioInput(placement="diagonal"), "choose one of grid, spread"),
        (AudioInput(preset="ma_avt_crema_d", mels=128), "of 447 samples have 224 frequencies; set it to 224"),
        (
            AudioInput(preset="dg_sct", seconds=11.0),
            "repeats the sound to 10.0 seconds; set it to that or less",
        ),
        (AudioInput(preset="dg_sct", seconds=0.03), "set it to one frame, 0.032, or more"),
        (AudioInput(preset="htsat", shift_ms=0.03), r"set it to 0\.03125 \(one sample\) or more"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(audio, message):
    with pytest.raises(AvtuneError, match=message) as raised:
        resolve_audio(audio)
    assert "\n" not in str(raised.value)


def test_swin_is_refused_any_other_spectrogram_with_the_settings_to_change():
    check_spectrogram_size(AUDIO_PRESETS["ave_swin"], 192, "swinv2_large_window12_192")
    with pytest.raises(AvtuneError, match=r"input\.audio\.mels=192 and input\.audio\.steps=192"):
        check_spectrogram_size(AUDIO_PRESETS["ave_vit"], 192, "swinv2_large_window12_192")


def test_a_preset_s_own_words_and_rates_are_checked():
    htsat = AUDIO_PRESETS["htsat"]
    for change, message in [
        ({"front_end": "mfcc"}, "choose one of kaldi_log_mel, log_stft, librosa_log_mel"),
        ({"beyond": "mirror"}, "choose one of silence, loop"),
        ({"sample_rate": 16000}, "set it to 28000 or more"),
        ({"sample_rate": 0}, "sample_rate is 0; set it above zero"),
    ]:
        with pytest.raises(AvtuneError, match=message) as raised:
            replace(htsat, **change)
        assert "\n" not in str(raised.value)
