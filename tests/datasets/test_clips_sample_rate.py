"""Sound is read at the rate that the front end asks for, from files and from unpacked clips alike."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from avtune.config import AudioInput, InputConfig
from avtune.datasets import FrameFolder, Record
from avtune.datasets.clips import prepare
from avtune.transforms import Prepared, Preprocessing


@pytest.mark.parametrize("preset", ["dg_sct", "ma_avt_crema_d", "nano"])
def test_unpacked_clips_are_heard_at_the_front_end_s_rate(tmp_path, preset):
    config = InputConfig(segments=2, audio=AudioInput(preset=preset))
    preprocessing = Preprocessing.from_config(config, 16, (0.5,) * 3, (0.5,) * 3)
    rate = preprocessing.audio.sample_rate
    generator = np.random.default_rng(1)
    sound = (generator.normal(0, 0.1, 2 * rate)).astype(np.float32)
    (tmp_path / "frames").mkdir()
    for number in range(1, 5):
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / "frames" / f"{number:04d}.jpg")
    wavfile.write(tmp_path / "sound.wav", rate, sound)
    np.save(tmp_path / "sound.npy", sound)
    for audio in ("sound.wav", "sound.npy"):
        folder = FrameFolder(tmp_path / "frames", tmp_path / audio, array_rate=rate)
        prepared = prepare(Record("clip", folder, ()), preprocessing)
        assert isinstance(prepared, Prepared)
        pictures = [np.zeros((20, 20, 3), np.uint8)] * 2
        expected = preprocessing.from_arrays(pictures, sound, duration=2.0)
        torch.testing.assert_close(prepared.spectrogram, expected.spectrogram, atol=1e-4, rtol=0)
        assert not any("exist" in note for note in prepared.notes)
