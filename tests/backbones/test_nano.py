"""The bundled backbone: its architecture, its packaged weights, and what goes wrong without them."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor

from avtune.backbones import nano
from avtune.backbones.nano import NANO_IMAGE_SIZE, NANO_MEAN, NANO_STD, NANO_WEIGHTS, create_nano
from avtune.errors import AvtuneError

WEIGHTS = resources.files("avtune.backbones") / NANO_WEIGHTS


def test_architecture_and_token_norm() -> None:
    model = create_nano(pretrained=False, seed=0)
    images = torch.randn(2, 3, NANO_IMAGE_SIZE, NANO_IMAGE_SIZE)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 64, 128)
    assert len(model.blocks) == 6
    # The tokens themselves are normalised, so a head may pool them as it likes.
    torch.testing.assert_close(tokens.std(-1, unbiased=False), torch.ones(2, 64), atol=1e-3, rtol=0)
    torch.testing.assert_close(model(images), tokens.mean(1))


def test_seed_decides_random_weights_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = create_nano(pretrained=False, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (create_nano(pretrained=False, seed=s).state_dict() for s in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_packaged_weights_are_small_half_precision_and_loaded_exactly() -> None:
    with resources.as_file(WEIGHTS) as path:
        assert path.stat().st_size < 8_000_000
        stored = load_file(path)
    loaded = create_nano().state_dict()
    assert stored.keys() == loaded.keys()
    for name, value in stored.items():
        assert value.dtype == torch.float16, name
        assert loaded[name].dtype == torch.float32, name
        assert torch.equal(value.float(), loaded[name]), name
        assert torch.isfinite(value).all(), name


def _figures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cross, ring, arrow or comb in random colours and places, (count, 3, 64, 64) normalised, and which."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = []
    for label in labels:
        back, ink = rng.integers(0, 100, 3), rng.integers(150, 256, 3)
        if rng.random() < 0.5:
            back, ink = ink, back
        canvas = Image.new("RGB", (64, 64), tuple(back.tolist()))
        draw, half = ImageDraw.Draw(canvas), int(rng.integers(8, 14))
        x, y = rng.integers(half, 64 - half, 2).tolist()
        box, fill = (x - half, y - half, x + half, y + half), tuple(ink.tolist())
        if label == 0:
            draw.line((x - half, y, x + half, y), fill, 4)
            draw.line((x, y - half, x, y + half), fill, 4)
        elif label == 1:
            draw.ellipse(box, outline=fill, width=4)
        elif label == 2:
            draw.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill)
        else:
            for shift in (-half, 0, half):
                draw.line((x + shift, y - half, x + shift, y + half), fill, 3)
        images.append(np.asarray(canvas))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (NANO_MEAN, NANO_STD))
    return (pixels - mean) / std, torch.from_numpy(labels)


def _ridge_accuracy(model: torch.nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        (train, labels), (test, wanted) = (
            (model(x).double(), y) for x, y in (_figures(240, 0), _figures(240, 1))
        )
    mean, std = train.mean(0), train.std(0)
    train, test = ((torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1)) for x in (train, test))
    target = torch.nn.functional.one_hot(labels, 4).double()
    gram = train.T @ train + 10 * torch.eye(train.shape[1])
    return float(((test @ torch.linalg.solve(gram, train.T @ target)).argmax(1) == wanted).double().mean())


def test_pretrained_features_tell_shapes_apart_better_than_random_ones() -> None:
    pretrained = _ridge_accuracy(create_nano())
    random = max(_ridge_accuracy(create_nano(pretrained=False, seed=s)) for s in (0, 1))
    assert pretrained > random + 0.1


def test_missing_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano, "NANO_WEIGHTS", "weights/absent.safetensors")
    with pytest.raises(AvtuneError, match="missing; reinstall avtune") as caught:
        create_nano()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, 200_000])
def test_truncated_weights_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path, keep: int
) -> None:
    broken = tmp_path / "nano.safetensors"
    broken.write_bytes(WEIGHTS.read_bytes()[:keep])
    monkeypatch.setattr(nano, "NANO_WEIGHTS", str(broken))
    with pytest.raises(AvtuneError, match=r"damaged .*; reinstall avtune") as caught:
        create_nano()
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    stored = create_nano(pretrained=False, seed=0).state_dict()
    stored["pos_embed"] = stored["pos_embed"][:, :49].clone()
    save_file(stored, tmp_path / "nano.safetensors")
    monkeypatch.setattr(nano, "NANO_WEIGHTS", str(tmp_path / "nano.safetensors"))
    with pytest.raises(AvtuneError, match="pos_embed") as caught:
        create_nano()
    assert "\n" not in str(caught.value)
