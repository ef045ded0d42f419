"""Models that hear through AST or HTS-AT: front end, rate and size from the tower, through real files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avtune.config import AudioInput, EncoderConfig, InputConfig, RunConfig
from avtune.errors import AvtuneError
from avtune.media import decode_audio, write_video
from avtune.model import AudioVisualModel
from avtune.transforms import AUDIO_PRESETS
from avtune.transforms.spectrograms import picture

LABELS = ("bell", "drum")


def model_of(audio_tower: str, preset: str | None = None, device: str | None = None) -> AudioVisualModel:
    config = RunConfig(
        encoder=EncoderConfig(tower="nano", audio_tower=audio_tower, pretrained=False, fusion="lavish"),
        input=InputConfig(segments=2, audio=AudioInput(preset=preset)),
    )
    return AudioVisualModel(config, LABELS, depth=1, device=device)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    path: Path = tmp_path_factory.mktemp("film") / "film.mp4"
    frames = generator.integers(0, 255, (10, 48, 64, 3), dtype=np.uint8)
    write_video(path, frames, 5.0, generator.normal(0, 0.1, 88200).astype(np.float32), 44100)
    return path


@pytest.mark.parametrize(
    ("audio_tower", "preset", "rate", "shape", "tokens"),
    [
        ("ast_tiny224_imagenet", "ast_second", 16000, (128, 102), 12 * 9 + 2),
        ("htsat", "dg_sct", 32000, (1001, 64), 64),
    ],
)
def test_a_tower_of_sound_names_its_front_end(
    film: Path, audio_tower: str, preset: str, rate: int, shape: tuple[int, int], tokens: int
) -> None:
    model = model_of(audio_tower)
    assert model.preprocessing.audio == AUDIO_PRESETS[preset]
    assert model.preprocessing.audio.sample_rate == rate
    prepared = model.preprocessing.load(film)
    assert prepared.spectrogram.shape == (2, *shape)
    waveform, _ = decode_audio(film, rate)
    sound = torch.from_numpy(waveform).double()
    if AUDIO_PRESETS[preset].subtract_mean:
        sound = sound - sound.mean()
    for second in range(2):
        heard = sound[rate * second : rate * (second + 1)]
        # The file's sound ends within the last second: what is missing there is silence.
        heard = torch.nn.functional.pad(heard, (0, rate - len(heard)))
        expected = picture(heard, AUDIO_PRESETS[preset])
        torch.testing.assert_close(prepared.spectrogram[second], expected, atol=2e-3, rtol=0)
    encoded = model.network.encoder(prepared.spectrogram[None], torch.zeros(1, 2, 3, 64, 64))
    assert encoded.audio.shape[:2] == (2, tokens)
    assert model.predict(film).probabilities.shape == (2, 3)


@pytest.mark.parametrize(
    ("audio_tower", "preset", "words"),
    [
        ("htsat", "ave_vit", "up to 1024 frames .* by 64 mel bands .*, not 102x128; set input.audio.preset=dg_sct"),
        ("htsat", "cav_mae", "not 128x1024"),
    ],
)  # fmt: skip
def test_a_front_end_that_the_tower_cannot_hear_is_refused_when_the_model_is_built(
    audio_tower: str, preset: str, words: str
) -> None:
    with pytest.raises(AvtuneError, match=words) as error:
        model_of(audio_tower, preset, device="meta")
    assert "\n" not in str(error.value)
