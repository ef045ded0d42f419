"""The pretraining of the nano backbone: its pictures, its objective, and going on after a stop."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from avtune.backbones.nano import create_nano

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "nano"


@pytest.fixture(scope="module")
def pretrain() -> ModuleType:
    # By its path, since a folder of the tests has the same name.
    spec = importlib.util.spec_from_file_location("nano_pretrain", TOOLS / "pretrain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(TOOLS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


@pytest.fixture
def small_bank(pretrain: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pretrain.ObjectPictures

    def small(seed: int, size: int = 512, difficulty: float = 1.0) -> object:
        return pictures(seed, size=size, difficulty=difficulty)

    monkeypatch.setattr(pretrain, "ObjectPictures", small)


def _options(out: Path, **changed: object) -> argparse.Namespace:
    options = {
        "out": out, "steps": 4, "objects": 5, "stacks": 3, "kept": 28, "predicted": 8, "preference": 0.6,
        "difficulty": 0.3, "whole": 1, "lr": 1e-3, "cooldown": 2, "warmup": 2, "decay": 0.05, "weights": "{}",
        "seed": 3, "compile": False, "report_every": 4, "save_every": 2,
    }  # fmt: skip
    return argparse.Namespace(**{**options, **changed})


@pytest.mark.usefixtures("small_bank")
def test_a_run_stopped_in_the_middle_ends_as_an_unbroken_one(
    pretrain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain.train(_options(tmp_path / "whole"))
    kept = pretrain.save

    def save_and_die(path: Path, state: dict[str, object]) -> None:
        kept(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(_options(tmp_path / "broken"))
    monkeypatch.setattr(pretrain, "save", kept)
    halfway = torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)
    assert (halfway["step"], halfway["images"]) == (2, 32)
    pretrain.train(_options(tmp_path / "broken"))
    whole, broken = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "broken")
    )
    assert whole["step"] == broken["step"] == 4
    for name, value in whole["model"].items():
        assert torch.equal(value, broken["model"][name]), name
    row = json.loads((tmp_path / "whole" / "log.jsonl").read_text())
    assert row["images"] == 64
    assert all(torch.isfinite(torch.tensor(value)) for value in row.values())


@pytest.mark.usefixtures("small_bank")
def test_export_scales_the_stream_and_keeps_the_features(pretrain: ModuleType, tmp_path: Path) -> None:
    pretrain.train(_options(tmp_path, steps=2))
    options = _options(tmp_path, export=tmp_path / "nano.safetensors", stream_std=0.25)
    pretrain.export(options)
    trained, exported = (
        create_nano(pretrained=False, seed=0).eval(),
        create_nano(pretrained=False, seed=0).eval(),
    )
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    prefix = "encoder."
    trained.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    exported.load_state_dict({k: v.float() for k, v in load_file(options.export).items()})
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        streams = [m.blocks(m.patch_embed(images) + m.pos_embed) for m in (trained, exported)]
        features = [model(images) for model in (trained, exported)]
    ratio = float(streams[1].std() / streams[0].std())
    torch.testing.assert_close(streams[1], streams[0] * ratio, atol=3e-3, rtol=1e-2)
    assert abs(ratio - 1) > 0.05
    torch.testing.assert_close(features[1], features[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize("family", ["objects", "stacks"])
def test_pictures_follow_from_the_seed_and_views_share_their_identity(
    pretrain: ModuleType, family: str
) -> None:
    source = pretrain.ObjectPictures(0, size=512) if family == "objects" else pretrain.StackPictures()
    first, again, other = (source.views(16, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for name in ("noisy", "clean", "mask", "canonical"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
        assert torch.isfinite(getattr(first, name)).all(), name
    assert not torch.equal(first.noisy, other.noisy)
    assert first.noisy.shape == (32, 3, 64, 64)
    assert first.canonical.shape == (16, 16, 16)
    assert 0.2 < float(first.noisy.std()) < 0.8
    # Two views of one identity are two pictures, else there would be nothing to learn from them.
    assert (first.noisy[:16] - first.noisy[16:]).abs().mean((1, 2, 3)).min() > 0.05
    if family == "objects":
        assert (first.mask.amax((1, 2)) > 0.5).double().mean() > 0.8


def test_covered_patches_are_preferred(pretrain: ModuleType) -> None:
    masks = torch.zeros(64, 64, 64)
    masks[:, 8:24, 8:24] = 1
    covered = {9, 10, 17, 18}
    generator = torch.Generator().manual_seed(0)
    always, wanted = pretrain.choose_patches(masks, 8, 16, 1.0, generator)
    assert all(covered <= set(row.tolist()) for row in always)
    evenly, _ = pretrain.choose_patches(masks, 8, 16, 0.0, generator)
    found = sum(len(covered & set(row.tolist())) for row in evenly) / 64
    assert 0.25 < found < 0.85
    assert all(not set(a.tolist()) & set(w.tolist()) for a, w in zip(always, wanted, strict=True))
