import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.config import AudioInput, InputConfig, VideoInput
from avtune.errors import AvtuneError
from avtune.media import Damage, MediaError, decode, decode_audio, probe, write_video
from avtune.transforms import AUDIO_PRESETS, Preprocessing, log_mel, normalise_frames
from avtune.transforms.preprocessing import damage_notes
from avtune.transforms.spectrograms import picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATE, SIDE = 10, 48


def make(segments=10, preset="nano", size=32, frames="grid", **audio):
    config = InputConfig(
        segments=segments,
        audio=AudioInput(preset=preset, **audio),
        video=VideoInput(placement=frames),
    )
    return Preprocessing.from_config(config, size, MEAN, STD)


def grey_levels(seconds):
    """One plain picture a frame, brighter by a step each: the frame's number can be read off it."""
    count = round(seconds * RATE)
    return [np.full((SIDE, SIDE, 3), 20 + 200 * i // max(count - 1, 1), np.uint8) for i in range(count)]


def tones(seconds):
    """A tone for each second, 300 Hz higher than in the second before."""
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.3 * np.sin(2 * np.pi * (500 + 300 * np.floor(time)) * time)).astype(np.float32)


def loudest_band(spectrogram):
    return spectrogram.mean(dim=1).argmax(dim=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "ten.mp4", grey_levels(10), RATE, tones(10))
    write_video(folder / "short.mp4", grey_levels(3.2), RATE, tones(3.2))
    write_video(folder / "blink.mp4", grey_levels(0.3), RATE, tones(0.3))
    write_video(folder / "long.mp4", grey_levels(27), RATE, tones(27))
    write_video(folder / "mute.mp4", grey_levels(10), RATE)
    write_video(folder / "silent.mp4", grey_levels(10), RATE, np.zeros(160000, np.float32))
    return folder


def test_ten_seconds_become_ten_segments(clips):
    prepared = make().load(clips / "ten.mp4")
    assert prepared.frames.shape == (10, 3, 32, 32)
    assert prepared.frames.dtype is torch.uint8
    assert prepared.spectrogram.shape == (10, 64, 64)
    assert prepared.spectrogram.dtype is torch.float32
    assert prepared.has_video.item() is True
    assert prepared.has_audio.item() is True
    assert prepared.valid.tolist() == [True] * 10
    assert prepared.notes == ()
    seen = prepared.frames.float().mean(dim=(1, 2, 3))
    shown = torch.tensor([20 + 200 * (10 * t + 5) // 99 for t in range(10)])
    assert (seen - shown).abs().max() <= 3
    bands = loudest_band(prepared.spectrogram)
    assert bands.tolist() == sorted(set(bands.tolist()))


def test_the_spectrogram_is_the_log_mel_of_the_segment(clips):
    prepared = make().load(clips / "ten.mp4")
    # In double precision: rounding the mean would show in the nearly empty bands.
    waveform = torch.from_numpy(decode(clips / "ten.mp4", [], video=False).waveform).double()
    waveform = waveform - waveform.mean()
    nano = AUDIO_PRESETS["nano"]
    for t in range(10):
        energies = log_mel(waveform[16000 * t : 16000 * (t + 1)], mels=64, shift_ms=nano.shift_ms)
        expected = (energies - nano.mean) / (2 * nano.std)
        torch.testing.assert_close(prepared.spectrogram[t], expected)


def test_loading_twice_is_bit_identical(clips):
    first, second = (make().load(clips / "ten.mp4") for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.spectrogram, second.spectrogram)


def test_a_short_clip_is_padded_and_says_so(clips):
    prepared = make().load(clips / "short.mp4")
    whole = make(segments=3).load(clips / "short.mp4")
    assert prepared.valid.tolist() == [True] * 3 + [False] * 7
    assert "3 of 10 segments exist, the file lasts 3.2" in prepared.notes[0]
    assert torch.equal(prepared.frames[:3], whole.frames)
    assert torch.equal(prepared.spectrogram[:3], whole.spectrogram)
    assert (prepared.frames[3:] == prepared.frames[2]).all()
    silence = (np.log(2.0**-23) - AUDIO_PRESETS["nano"].mean) / (2 * AUDIO_PRESETS["nano"].std)
    assert (prepared.spectrogram[4:] - silence).abs().max() < 1e-4
    assert not any("repeat" in note for note in prepared.notes)


def test_a_clip_of_three_frames_has_one_segment(clips):
    prepared = make().load(clips / "blink.mp4")
    assert prepared.valid.tolist() == [True] + [False] * 9
    assert prepared.spectrogram.isfinite().all()
    windows = list(make().load_windows(clips / "blink.mp4"))
    assert [start for start, _ in windows] == [0.0]


def test_a_clip_without_sound_is_zero_and_says_so(clips):
    prepared = make().load(clips / "mute.mp4")
    assert prepared.has_audio.item() is False
    assert prepared.has_video.item() is True
    assert prepared.spectrogram.shape == (10, 64, 64)
    assert not prepared.spectrogram.any()
    assert prepared.notes == ("no sound",)


def test_a_silent_track_is_real_data_and_says_so(clips):
    prepared = make().load(clips / "silent.mp4")
    assert prepared.has_audio.item() is True
    assert prepared.spectrogram.max() < -1.0
    assert prepared.notes == ("the sound is silent",)


def test_sound_without_video_gets_the_mean_colour_and_says_so(media_dir):
    alone = [
        path
        for path in sorted(media_dir.glob("*/*"))
        if path.stat().st_size > 0 and probe(path).video is None
    ]
    assert alone
    for path in alone:
        prepared = make().load(path)
        assert prepared.has_video.item() is False
        assert prepared.has_audio.item() is True
        assert "no video" in prepared.notes
        assert normalise_frames(prepared.frames, MEAN, STD).abs().max() < 0.01
        assert prepared.spectrogram.std() > 0


def test_every_real_clip_is_prepared_or_refused_in_one_line(media_dir):
    prepared, refusals = 0, []
    for path in sorted(media_dir.glob("*/*")):
        try:
            whole = make().load(path)
        except MediaError as error:
            refusals.append((path, str(error)))
            continue
        assert whole.spectrogram.isfinite().all()
        assert whole.has_video.item() or whole.has_audio.item()
        windows = list(make().load_windows(path, 4))
        assert windows[0][0] == 0.0
        assert torch.equal(windows[0][1].frames, whole.frames)
        torch.testing.assert_close(windows[0][1].spectrogram, whole.spectrogram, atol=1e-5, rtol=0)
        prepared += 1
    assert prepared >= 1
    assert all(str(path) in told and "\n" not in told for path, told in refusals)


def test_a_damaged_file_says_what_is_damaged(media_dir):
    notes = [make().load(path).notes for path in sorted(media_dir.glob("*/corrupted*.mp4"))]
    assert notes
    assert all(any(note.startswith("damaged") for note in of_file) for of_file in notes)


def test_damage_is_told_in_counts():
    assert damage_notes(Damage()) == ()
    told = damage_notes(
        Damage(video_packets_bad=2, frames_repeated=3, audio_gap_seconds=0.5, notes=("bent",))
    )
    assert told == (
        "damaged video packets: 2",
        "segments that repeat the last decodable frame: 3",
        "0.50 s of sound are missing",
        "bent",
    )


def test_a_start_inside_a_long_file_is_that_stretch(clips):
    later = make(segments=5).load(clips / "long.mp4", start=12.0)
    whole = make(segments=27).load(clips / "long.mp4")
    assert later.valid.all()
    assert torch.equal(later.frames, whole.frames[12:17])
    torch.testing.assert_close(later.spectrogram, whole.spectrogram[12:17], atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", [-1.0, 10.5, 99.0])
def test_a_start_outside_the_file_is_refused(clips, start):
    with pytest.raises(MediaError, match=f"has no second {start:g}, it lasts 10"):
        make().load(clips / "ten.mp4", start=start)


@pytest.mark.parametrize("stride", [3, 7, None])
def test_windows_cover_a_long_file_like_single_loads(clips, stride):
    preprocessing = make(segments=10)
    windows = list(preprocessing.load_windows(clips / "long.mp4", stride))
    starts = [start for start, _ in windows]
    assert starts == [*np.arange(0, 17, stride or 10), 17.0]
    for start, prepared in windows:
        alone = preprocessing.load(clips / "long.mp4", start)
        assert prepared.valid.all()
        assert torch.equal(prepared.frames, alone.frames)
        torch.testing.assert_close(prepared.spectrogram, alone.spectrogram, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["ave_swin", "cav_mae"])
def test_windows_follow_the_authors_placement_too(clips, preset):
    preprocessing = make(segments=10, preset=preset, frames="spread")
    windows = list(preprocessing.load_windows(clips / "long.mp4"))
    assert [start for start, _ in windows] == [0.0, 10.0, 17.0]
    for start, prepared in windows:
        alone = preprocessing.load(clips / "long.mp4", start)
        assert torch.equal(prepared.frames, alone.frames)
        torch.testing.assert_close(prepared.spectrogram, alone.spectrogram, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["dg_sct", "ma_avt_vggsound", "ma_avt_crema_d"])
def test_sound_is_decoded_at_the_front_end_s_rate(clips, preset):
    preprocessing = make(segments=1, preset=preset)
    rate = preprocessing.audio.sample_rate
    waveform, _ = decode_audio(clips / "short.mp4", rate)
    assert round(len(waveform) / rate, 1) == 3.2
    for start in (0.0, 2.0):
        prepared = preprocessing.load(clips / "short.mp4", start)
        ((first, end),) = preprocessing.sound_windows(len(waveform), start)
        heard = [waveform[i % len(waveform)] for i in range(first, end)]
        if preset == "dg_sct":
            assert (first, end) == (rate * start, rate * (start + 1))
        else:
            # Nothing is missing: the clip begins anew where it ends.
            assert end - first == preprocessing.audio.window_samples
        expected = picture(torch.tensor(heard, dtype=torch.float64), preprocessing.audio)
        torch.testing.assert_close(prepared.spectrogram[0], expected, atol=2e-3, rtol=0)


def test_the_file_is_decoded_once_for_all_windows(clips, monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return decode(*args, **options)

    monkeypatch.setattr("avtune.transforms.preprocessing.decode", counted)
    assert len(list(make().load_windows(clips / "long.mp4", 1))) == 18
    assert len(calls) == 1
    assert len(calls[0][1]) == 27


def test_spread_placement_sees_the_first_and_the_last_frame(clips):
    prepared = make(preset="ave_vit", frames="spread").load(clips / "ten.mp4")
    seen = prepared.frames.float().mean(dim=(1, 2, 3))
    numbers = np.linspace(1, 100, 10).astype(int) - 1
    assert (seen - torch.tensor([20 + 200 * int(i) // 99 for i in numbers])).abs().max() <= 3
    assert prepared.spectrogram.shape == (10, 102, 128)
    assert not prepared.spectrogram[:, 98:].any()
    assert prepared.spectrogram[:, 97].abs().amax(dim=1).gt(0).all()


def test_whole_clip_presets_give_one_picture_for_all_segments(clips):
    prepared = make(segments=2, preset="avsiam").load(clips / "ten.mp4")
    assert prepared.spectrogram.shape == (1, 128, 1024)
    assert len(prepared.frames) == len(prepared.valid) == 2
    silent = make(segments=2, preset="avsiam").from_arrays(
        [np.zeros((9, 9, 3), np.uint8)] * 2, None, duration=10
    )
    assert silent.spectrogram.shape == (1, 128, 1024)
    heard = 1 + (decode(clips / "ten.mp4", [], video=False).waveform.size - 400) // 160
    assert 998 <= heard < 1010
    padding = prepared.spectrogram[0, :, heard:] - 5.081 / 4.4849
    assert padding.abs().max() < 1e-5
    assert prepared.spectrogram[0, :, heard - 1].std() > 0


def test_extracted_frames_and_sound_equal_the_file(clips):
    preprocessing = make()
    times = [(i + 0.5) / RATE for i in range(100)]
    clip = decode(clips / "ten.mp4", times)
    indices = preprocessing.frame_indices(100, 10.0)
    assert indices == list(range(5, 100, 10))
    given = preprocessing.from_arrays([clip.frames[i] for i in indices], clip.waveform, duration=10.0)
    loaded = preprocessing.load(clips / "ten.mp4")
    assert torch.equal(given.frames, loaded.frames)
    assert torch.equal(given.spectrogram, loaded.spectrogram)
    assert given.notes == loaded.notes


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 700),
    segments=st.integers(1, 12),
    seconds=st.floats(0.1, 30.0),
    placement=st.sampled_from(["grid", "spread"]),
)
def test_frame_indices_stay_inside_and_ascend(count, segments, seconds, placement):
    indices = make(segments, frames=placement).frame_indices(count, seconds)
    assert len(indices) == segments
    assert indices == sorted(indices)
    assert min(indices) >= 0
    assert max(indices) < count


@settings(max_examples=60, deadline=None)
@given(count=st.integers(10, 700), offset=st.floats(-0.5, 0.5))
def test_spread_frame_indices_are_the_authors(count, offset):
    indices = make(frames="spread").frame_indices(count, 10.0 + offset)
    assert indices == (np.linspace(1, count, 10).astype(int) - 1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    segments=st.integers(1, 12),
    duration=st.floats(0.05, 40.0),
    placement=st.sampled_from(["grid", "spread"]),
    rate=st.sampled_from([1.0, 8.0, 25.0, 59.94]),
)
def test_frame_times_lie_within_the_file(segments, duration, placement, rate):
    times = make(segments, frames=placement).frame_times(duration, rate=rate)
    assert len(times) == segments
    assert times == sorted(times)
    assert all(0 <= time < duration for time in times)


def test_neither_frames_nor_sound_is_refused():
    with pytest.raises(MediaError, match="neither video nor sound"):
        make().from_arrays(None, np.zeros(0, np.float32), duration=10.0)
    with pytest.raises(ValueError, match="3 frames were given for 10 segments"):
        make().from_arrays(grey_levels(0.3), None, duration=10.0)


def test_sound_shorter_than_one_frame_is_noted():
    prepared = make(preset="ave_vit").from_arrays(None, tones(10)[:200], duration=10.0)
    assert any("200 samples of sound are less than one frame of 400" in note for note in prepared.notes)
    assert prepared.spectrogram.isfinite().all()


@pytest.mark.parametrize("preset", AUDIO_PRESETS)
def test_state_survives_json_exactly(preset):
    config = InputConfig(
        segments=7,
        segment_seconds=0.1 + 0.2,
        audio=AudioInput(preset=preset, mean=-5.000000000000001),
        video=VideoInput(size=96, mean=(0.1, 0.2, 1 / 3), placement="spread"),
    )
    preprocessing = Preprocessing.from_config(config, 224, MEAN, STD)
    restored = Preprocessing.from_state(json.loads(json.dumps(preprocessing.state())))
    assert restored == preprocessing
    assert restored.mean == (0.1, 0.2, 1 / 3)
    assert restored.size == 96


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("video"),
        lambda state: state["audio"].pop("mels"),
        lambda state: state["audio"].update(colour="blue"),
        lambda state: state["video"].update(mean=[1.0]),
        lambda state: state.update(version=99),
        lambda state: state["audio"].update(std=0.0),
    ],
)
def test_a_damaged_state_is_refused_in_one_line(damage):
    state = make().state()
    damage(state)
    with pytest.raises(AvtuneError) as raised:
        Preprocessing.from_state(state)
    assert "\n" not in str(raised.value)


def test_the_towers_size_is_demanded_of_the_spectrogram():
    config = InputConfig(audio=AudioInput(preset="ave_swin"))
    assert Preprocessing.from_config(config, 192, MEAN, STD, audio_size=192).spectrogram_shape == (192, 192)
    with pytest.raises(AvtuneError, match=r"set input\.audio\.mels=256 and input\.audio\.steps=256"):
        Preprocessing.from_config(config, 256, MEAN, STD, audio_size=256)


@pytest.mark.parametrize(
    "config",
    [
        InputConfig(video=VideoInput(std=(0.0, 1.0, 1.0))),
        InputConfig(video=VideoInput(placement="middle")),
    ],
)
def test_impossible_settings_are_refused(config):
    with pytest.raises(AvtuneError, match="input"):
        Preprocessing.from_config(config, 32, MEAN, STD)


def test_sound_windows_are_those_of_the_preset():
    assert make(3).sound_windows(48000) == [(0, 16000), (16000, 32000), (32000, 48000)]
    assert make(3).sound_windows(160000, start=4.0)[0] == (64000, 80000)
