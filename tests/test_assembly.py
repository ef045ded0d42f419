"""Where a whole encoder begins: a pretraining run, a published file, the tower's weights; and that a run needs none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtune.assembly import assemble
from avtune.config import (
    AudioInput,
    EncoderConfig,
    HeadConfig,
    InputConfig,
    PretrainingConfig,
    RunConfig,
    TrainConfig,
    VideoInput,
)
from avtune.errors import AvtuneError
from avtune.interop.lavish import ConversionError
from avtune.model import AudioVisualModel, ModelError, load
from avtune.pretrain.backbone import take_backbone
from avtune.pretrain.finetuning import FinetunedNetwork
from avtune.pretrain.saved import build_model, save_pretrained
from avtune.transforms import AUDIO_PRESETS, Preprocessing
from avtune.transforms.presets import resolve_audio
from pretrain.official_states import avsiam_state

LABELS = ("bell", "drum", "rain")
SOUND = AudioInput(preset="nano", placement="clip", mels=32, steps=48, seconds=2.0, shift_ms=40.0)
COLOURS = (0.3, 0.4, 0.5)
OPTIONS = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 4}


def pretrained(folder: Path, objective: str = "avsiam", **config: Any) -> Any:
    """A made-up pretraining run whose weights no start has."""
    made = PretrainingConfig(objective, "nano", options=OPTIONS, depth=2, **config)
    preprocessing = Preprocessing(1, 1.0, resolve_audio(SOUND), 64, COLOURS, COLOURS)
    model = build_model(made, preprocessing, pretrained=False)
    save_pretrained(folder, model.state_dict(), made, preprocessing)
    return model


def config_of(**encoder: Any) -> RunConfig:
    return RunConfig(
        input=InputConfig(segments=3, segment_seconds=0.5),
        encoder=EncoderConfig(**encoder),
        head=HeadConfig("classification"),
    )


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
def test_a_run_begins_with_the_weights_and_the_sound_of_its_pretraining(
    objective: str, tmp_path: Path
) -> None:
    source = pretrained(tmp_path / "pretrained", objective)
    config = config_of(pretraining=str(tmp_path / "pretrained"))
    built = assemble(config, LABELS)
    own = built.network.encoder.state_dict()
    assert own.keys() == source.encoder.state_dict().keys()
    assert all(torch.equal(value, own[name]) for name, value in source.encoder.state_dict().items())
    assert all(weight.requires_grad for weight in built.network.parameters())
    encoder, input = built.config.encoder, built.config.input
    assert (encoder.objective, encoder.tower, encoder.depth, encoder.options) == (
        objective,
        "nano",
        2,
        OPTIONS,
    )
    assert encoder.methods == (objective,)
    assert (input.audio.preset, input.audio.placement, input.audio.steps) == ("nano", "clip", 48)
    assert (input.video.size, input.video.mean, input.video.std) == (64, COLOURS, COLOURS)
    assert (built.preprocessing.audio.shape, built.preprocessing.segments) == ((48, 32), 3)


def test_a_saved_run_needs_neither_the_pretraining_run_nor_another_start(tmp_path: Path) -> None:
    folder = tmp_path / "pretrained"
    pretrained(folder)
    torch.manual_seed(1)
    model = AudioVisualModel(config_of(pretraining=str(folder)), LABELS)
    model.save(tmp_path / "run")
    for file in folder.iterdir():
        file.unlink()
    again = load(tmp_path / "run")
    assert again.config == model.config
    assert again.preprocessing == model.preprocessing
    weights, others = model.network.trained_state(), again.network.trained_state()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert sum(value.numel() for value in weights.values()) == sum(p.numel() for p in again.parameters())
    assert "nano, trained as a whole" in again.summary()
    # The sections that were filled in rebuild it as they are.
    with pytest.raises(AvtuneError, match=r"no weights\.safetensors, so this is no finished pretraining run"):
        AudioVisualModel(model.config, LABELS)
    (tmp_path / "run/labels.json").write_text(json.dumps(["bell"]))
    with pytest.raises(ModelError, match=r"weight classifier\.head\..* expected"):
        load(tmp_path / "run")


def test_a_published_file_begins_an_encoder_with_its_settings(tmp_path: Path, monkeypatch: Any) -> None:
    torch.save(avsiam_state(192, 3, second=True), tmp_path / "published.pth")
    encoder = {
        "tower": "vit_tiny_patch16_224.augreg_in21k",
        "depth": 3,
        "pretraining": str(tmp_path / "published.pth"),
    }
    with pytest.raises(
        AvtuneError, match=r"does not say what it was pretrained as; set encoder\.objective to"
    ):
        assemble(config_of(**encoder), LABELS)
    built = assemble(config_of(**encoder, objective="avsiam"), LABELS)
    assert built.config.encoder.options["doubled_embeddings"] is True
    assert built.config.input.audio == AudioInput(preset="avsiam")
    assert built.preprocessing.audio == AUDIO_PRESETS["avsiam"]
    state = torch.load(tmp_path / "published.pth", weights_only=True)
    own = built.network.state_dict()
    assert torch.equal(
        own["classifier.encoder.joint.blocks.1.mlp.fc1.weight"], state["mm_layer_2.mlp.fc1.weight"]
    )
    rebuilt = assemble(built.config, LABELS, begin=False)
    assert rebuilt.network.state_dict().keys() == own.keys()
    assert rebuilt.network.encoder.audio.doubled  # type: ignore[union-attr]
    with pytest.raises(ConversionError, match="give the backbone it was made with instead of nano"):
        assemble(config_of(**{**encoder, "tower": "nano"}, objective="avsiam"), LABELS)


def test_without_pretraining_an_encoder_begins_from_its_tower_or_from_a_seed() -> None:
    def kernel(**encoder: Any) -> torch.Tensor:
        config = config_of(objective="avsiam", depth=2, options=OPTIONS, **encoder)
        built = assemble(replace(config, input=replace(config.input, audio=SOUND)), LABELS)
        assert isinstance(built.network, FinetunedNetwork)
        return built.network.encoder.video.weight.detach()  # type: ignore[union-attr, return-value]

    drawn = kernel(pretrained=False)
    assert torch.equal(kernel(pretrained=False, tower_seed=0), drawn)
    assert not torch.equal(kernel(pretrained=False, tower_seed=1), drawn)
    assert torch.equal(kernel(), take_backbone("nano").kernel)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    pretrained(tmp_path / "run")
    fits = config_of(pretraining=str(tmp_path / "run"))
    whole = config_of(objective="avsiam")
    sound = replace(fits.input, audio=AudioInput(preset="nano", placement="clip"))
    for config, words in (
        (config_of(pretraining=str(tmp_path / "absent")), "there is neither a run nor a file of weights"),
        (config_of(pretraining=str(tmp_path)), "no weights.safetensors, so this is no finished pretraining run"),
        (config_of(pretraining=str(tmp_path / "run"), objective="cav_mae"), "was pretrained as avsiam, encoder"),
        (config_of(objective="avsaim"), "unknown objective 'avsaim'; did you mean 'avsiam'?"),
        (replace(fits, input=sound), "takes spectrograms of 48x32 and frames of 64"),
        (replace(fits, input=replace(fits.input, video=VideoInput(size=32))), "takes spectrograms of 48x32 and frames"),
        (replace(whole, input=replace(whole.input, audio=AudioInput(preset="nano"))), "set input.audio.placement=clip"),
        (replace(fits, head=HeadConfig("localization")), "set head.task=classification"),
        (replace(fits, head=HeadConfig("classification", name="mbt")), "leave head.name out"),
        (replace(fits, train=TrainConfig(floors=True)), "leave out train.floors"),
        (replace(fits, train=TrainConfig(compile=True)), "train.compile is for frozen towers"),
    ):  # fmt: skip
        with pytest.raises(AvtuneError, match=words) as caught:
            assemble(config, LABELS)
        assert "\n" not in str(caught.value)
