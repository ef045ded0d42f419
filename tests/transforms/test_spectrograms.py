import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.config import InputConfig
from avtune.transforms import AUDIO_PRESETS, Preprocessing, log_mel
from avtune.transforms.front_ends import FRONT_ENDS
from avtune.transforms.spectrograms import cut, picture, pictures, sound_windows
from avtune.transforms.windows import Section

GREY = (0.5, 0.5, 0.5)


def noise(samples, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_golden_normalised_pictures_equal_the_reference(golden_dir):
    """CAV-MAE's and AVSiam's input from beginning to end: mean removed, padded, then normalised."""
    config = InputConfig(segments=1, segment_seconds=10.0)
    config.audio.preset = "cav_mae"
    preprocessing = Preprocessing.from_config(config, 8, GREY, GREY)
    compared = 0
    for path in sorted((golden_dir / "fbank").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if "fbank_norm" not in arrays:
                continue
            prepared = preprocessing.from_arrays(None, arrays["wav"], duration=arrays["wav"].size / 16000)
            expected = torch.from_numpy(arrays["fbank_norm"]).T
            assert prepared.spectrogram.shape == (1, *expected.shape)
            assert (prepared.spectrogram[0] - expected).abs().max() < 5e-3 / 4.4849 + 1e-5, path.name
            compared += 1
    assert compared >= 1


def test_golden_short_clip_equals_the_reference(golden_dir):
    """The short clip is the beginning of the sweep; how much of it shows in the padding."""
    for path in sorted((golden_dir / "fbank").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if "short_norm" not in arrays:
                continue
            expected = torch.from_numpy(arrays["short_norm"])
            waveform = torch.from_numpy(arrays["wav"])
        padding = 5.081 / 4.4849
        frames = int((expected - padding).abs().amax(dim=1).gt(1e-5).sum())
        short = waveform[: 400 + 160 * (frames - 1)]
        ours = picture(short - short.mean(), AUDIO_PRESETS["cav_mae"]).T
        assert (ours - expected).abs().max() < 5e-3 / 4.4849 + 1e-5, path.name


@pytest.mark.parametrize("name", AUDIO_PRESETS)
def test_every_preset_gives_its_picture(name):
    audio = AUDIO_PRESETS[name]
    result = picture(noise(audio.window_samples), audio)
    assert result.shape == audio.shape
    assert result.dtype is torch.float32
    assert result.isfinite().all()
    heard = noise(audio.window_samples)
    if audio.tile_seconds:
        heard = heard.repeat(audio.tiled_samples // audio.window_samples)
    raw = FRONT_ENDS[audio.front_end].compute(
        heard,
        sample_rate=audio.sample_rate,
        mels=audio.mels,
        window_ms=audio.window_ms,
        shift_ms=audio.shift_ms,
    )
    assert raw.shape[0] == audio.real_steps
    by_time = result if audio.rows == "time" else result.T
    kept = min(audio.real_steps, audio.steps)
    torch.testing.assert_close(by_time[:kept], (raw[:kept] - audio.mean) / (2 * audio.std))
    padding = 0.0 if audio.pad == "after_normalising" else -audio.mean / (2 * audio.std)
    assert by_time[kept:].sub(padding).abs().le(1e-6).all()


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(0, 300), first=st.integers(-400, 400), length=st.integers(0, 500))
def test_cut_continues_with_zeros(samples, first, length):
    waveform = torch.arange(1.0, samples + 1)
    expected = [waveform[i].item() if 0 <= i < samples else 0.0 for i in range(first, first + length)]
    assert cut(waveform, first, first + length).tolist() == expected
    lower = [value - 0.5 if value else 0.0 for value in expected]
    assert cut(waveform, first, first + length, mean=0.5).tolist() == lower


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 300), first=st.integers(-400, 400), length=st.integers(0, 900))
def test_cut_continues_with_the_sound_itself(samples, first, length):
    waveform = torch.arange(1.0, samples + 1)
    expected = [float(i % samples + 1) for i in range(first, first + length)]
    assert cut(waveform, first, first + length, beyond="loop").tolist() == expected
    lower = [value - 0.5 for value in expected]
    assert cut(waveform, first, first + length, mean=0.5, beyond="loop").tolist() == lower
    assert cut(waveform[:0], first, first + length, beyond="loop").tolist() == [0.0] * length


def test_a_second_is_heard_ten_times_by_hts_at():
    audio = AUDIO_PRESETS["dg_sct"]
    second = noise(32000)
    tiled = picture(second, audio)
    assert torch.equal(tiled, picture(torch.cat([second] * 10), AUDIO_PRESETS["htsat"]))
    # A second is a hundred frames: all but the mirrored ends repeat.
    torch.testing.assert_close(tiled[2:899], tiled[102:999], atol=1e-3, rtol=0)
    windows = sound_windows(Section(0.0, 10, 1.0, 10.0), 320000, audio)
    assert windows == [(32000 * t, 32000 * (t + 1)) for t in range(10)]
    assert torch.equal(picture(second[:10000], audio), picture(second[:10000].repeat(32), audio))


def test_a_window_shorter_than_one_frame_is_continued_with_silence():
    audio = AUDIO_PRESETS["ave_vit"]
    short = noise(100)
    padded = torch.cat([short, torch.zeros(300)])
    result = picture(short, audio)
    torch.testing.assert_close(result[0], (log_mel(padded)[0] - audio.mean) / (2 * audio.std))
    assert not result[1:].any()


def test_grid_windows_of_the_nano_preset_are_the_segments_themselves():
    windows = sound_windows(Section(0.0, 10, 1.0, 10.0), 160000, AUDIO_PRESETS["nano"])
    assert windows == [(16000 * t, 16000 * (t + 1)) for t in range(10)]


def test_spread_windows_are_the_authors_for_ten_seconds():
    section = Section(0.0, 10, 1.0, 10.0)
    windows = sound_windows(section, 160000, AUDIO_PRESETS["ave_swin"])
    assert [first for first, _ in windows] == [
        0,
        15822,
        31644,
        47466,
        63288,
        79111,
        94933,
        110755,
        126577,
        142400,
    ]
    assert {end - first for first, end in windows} == {16000}


@pytest.mark.parametrize("samples", [152100, 159700, 160480, 167000])
def test_a_clip_of_nearly_ten_seconds_is_spread_over_its_own_length(samples):
    section = Section(0.0, 10, 1.0, samples / 16000)
    windows = sound_windows(section, samples, AUDIO_PRESETS["ave_swin"])
    assert [first for first, _ in windows] == np.linspace(0, samples - 17600, 10).astype(int).tolist()


def test_music_questions_hear_windows_spread_over_the_minute():
    windows = sound_windows(Section(0.0, 10, 6.0, 60.0), 960000, AUDIO_PRESETS["avqa"])
    assert [first for first, _ in windows] == np.linspace(0, 960000 - 32800, 10).astype(int).tolist()
    assert {end - first for first, end in windows} == {31200}


@pytest.mark.parametrize("samples", [300, 8000, 16000, 17600])
def test_sound_of_one_window_or_less_is_heard_whole_by_every_segment(samples):
    windows = sound_windows(Section(0.0, 10, 1.0, 10.0), samples, AUDIO_PRESETS["ave_swin"])
    assert windows == [(0, samples)] * 10


def test_spread_windows_keep_the_time_axis_of_a_much_longer_or_shorter_file():
    nominal = sound_windows(Section(0.0, 10, 1.0, 10.0), 160000, AUDIO_PRESETS["ave_swin"])
    for samples in (70000, 480000):
        section = Section(0.0, 10, 1.0, samples / 16000)
        assert sound_windows(section, samples, AUDIO_PRESETS["ave_swin"]) == nominal
    later = sound_windows(Section(20.0, 10, 1.0, 60.0), 960000, AUDIO_PRESETS["ave_swin"])
    assert later == [(first + 320000, end + 320000) for first, end in nominal]


def test_clip_placement_ends_with_the_sound():
    section = Section(0.0, 3, 1.0, 10.0)
    assert sound_windows(section, 160000, AUDIO_PRESETS["cav_mae"]) == [(0, 160000)] * 3
    assert sound_windows(section, 480000, AUDIO_PRESETS["cav_mae"]) == [(0, 164080)] * 3


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(AUDIO_PRESETS)),
    start=st.integers(0, 30),
    samples=st.integers(1, 600000),
    segments=st.integers(1, 12),
    segment_seconds=st.sampled_from([0.5, 1.0, 6.0]),
)
def test_every_placement_gives_every_segment_a_window(name, start, samples, segments, segment_seconds):
    section = Section(float(start), segments, segment_seconds, samples / 16000)
    windows = sound_windows(section, samples, AUDIO_PRESETS[name])
    assert len(windows) == segments
    assert windows == sorted(windows)
    assert all(
        0 <= end - first <= max(AUDIO_PRESETS[name].window_samples + 1600, 0) for first, end in windows
    )


def test_equal_windows_give_equal_pictures_and_order_is_kept():
    audio = AUDIO_PRESETS["nano"]
    waveform = noise(48000)
    result = pictures(waveform, [(16000, 32000), (0, 16000), (16000, 32000)], audio)
    assert torch.equal(result[0], result[2])
    assert torch.equal(result[1], picture(waveform[:16000], audio))
    assert not torch.equal(result[0], result[1])


@pytest.mark.parametrize("samples", [23000, 50000, 66150, 120000])
def test_three_seconds_of_an_acted_sentence_are_the_sentence_over_and_over(samples):
    audio = AUDIO_PRESETS["ma_avt_crema_d"]
    sentence = noise(samples)
    windows = sound_windows(Section(0.0, 1, 3.0, samples / 22050), samples, audio)
    assert windows == [(0, 66150)]
    tiled = sentence.repeat(3)[:66150]
    assert torch.equal(pictures(sentence, windows, audio)[0], picture(tiled, audio))


@pytest.mark.parametrize("samples", [50000, 100000, 159000, 160000, 170000])
def test_five_seconds_from_the_third_on_are_those_of_the_clip_tiled_to_ten(samples):
    """The authors' test setting: seconds 3 to 8 of a clip that is repeated until it lasts ten seconds."""
    audio = AUDIO_PRESETS["ma_avt_vggsound"]
    clip = noise(samples)
    windows = sound_windows(Section(3.0, 1, 5.0, samples / 16000), samples, audio)
    assert windows == [(48000, 128000)]
    tiled = clip.repeat(-(-160000 // samples))[48000:128000]
    assert torch.equal(pictures(clip, windows, audio)[0], picture(tiled, audio))
