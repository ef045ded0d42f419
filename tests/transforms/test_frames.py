import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avtune.transforms import normalise_frames, resize_frame
from avtune.transforms.frames import mean_frame

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def textured(height, width, seed=0):
    """Coarse shapes with fine noise on them, channels independent: aliases badly if undersampled."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    fine = generator.integers(-60, 61, (height, width, 3))
    return np.clip(coarse[:height, :width] + fine, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(360, 640), (1080, 1920), (50, 30), (64, 300)])
@pytest.mark.parametrize("size", [64, 192, 224])
def test_resize_equals_pillows_antialiased_bicubic(height, width, size):
    frame = textured(height, width)
    ours = resize_frame(frame, size).permute(1, 2, 0).numpy()
    pillow = np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))
    assert np.abs(ours.astype(int) - pillow.astype(int)).mean() < 1.0


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 80), width=st.integers(1, 80), size=st.integers(1, 80), value=st.integers(0, 255)
)
def test_resize_keeps_a_plain_colour_and_gives_the_shape(height, width, size, value):
    resized = resize_frame(np.full((height, width, 3), value, dtype=np.uint8), size)
    assert resized.shape == (3, size, size)
    assert resized.dtype is torch.uint8
    assert resized.is_contiguous()
    assert (resized == value).all()


def test_resize_keeps_channels_and_does_not_share_memory():
    frame = textured(64, 64)
    frame[..., 0], frame[..., 2] = 0, 255
    resized = resize_frame(frame, 64)
    assert resized[0].max() == 0
    assert resized[2].min() == 255
    assert torch.equal(resized[1], torch.from_numpy(frame[..., 1].copy()))
    frame[:] = 7
    assert resized[2].min() == 255


def test_read_only_frames_are_accepted():
    frame = textured(40, 40)
    frame.flags.writeable = False
    assert torch.equal(resize_frame(frame, 20), resize_frame(frame.copy(), 20))


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(frame):
    with pytest.raises(ValueError, match="frame must be uint8"):
        resize_frame(frame, 8)


def test_normalising_is_the_towers_formula():
    frames = torch.from_numpy(textured(16, 16)).permute(2, 0, 1).expand(2, 5, 3, 16, 16)
    ours = normalise_frames(frames, IMAGENET_MEAN, IMAGENET_STD)
    for channel in range(3):
        expected = (frames[:, :, channel].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(ours[:, :, channel].double(), expected, atol=1e-5, rtol=0)
    assert ours.dtype is torch.float32


def test_missing_video_is_zero_after_normalising():
    missing = mean_frame(IMAGENET_MEAN, 8)
    assert normalise_frames(missing, IMAGENET_MEAN, IMAGENET_STD).abs().max() < 0.5 / 255 / 0.224 + 1e-6
    frames = torch.stack([missing, torch.full_like(missing, 200)])[:, None]
    masked = normalise_frames(frames, IMAGENET_MEAN, IMAGENET_STD, torch.tensor([False, True]))
    assert not masked[0].any()
    assert masked[1].all()


@pytest.mark.parametrize("frames", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)])
def test_what_is_no_batch_of_frames_is_refused(frames):
    with pytest.raises(ValueError, match="frames must be uint8"):
        normalise_frames(frames, IMAGENET_MEAN, IMAGENET_STD)
