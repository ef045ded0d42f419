"""The packaged recipes of ``avtune pretrain``: complete, right in the numbers they are for, and able to make a step."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtune.config import PretrainingRunConfig
from avtune.recipes import (
    ConfigError,
    fields_of,
    parse_pretraining_config,
    recipe_names,
    recipe_path,
    refuse_unknown,
    to_yaml,
)
from avtune.runs.pretraining import complete, prepare, start_model

NAMES = recipe_names(PretrainingRunConfig)


def read(name: str) -> PretrainingRunConfig:
    return parse_pretraining_config(base=recipe_path(name, PretrainingRunConfig))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    config = complete(read(name))
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert parse_pretraining_config(base=tmp_path / "c.yaml") == config
    first = recipe_path(name, PretrainingRunConfig).read_text().splitlines()[0]
    assert first.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_a_step_with_one_block_and_small_pictures(name: str) -> None:
    config = complete(read(name))
    patch = {"nano": 8, "vit_huge_patch14_224.orig_in21k": 14}.get(config.pretraining.backbone or "", 16)
    small = {"joint_blocks": 1, "decoder_depth": 1}
    config = replace(
        config,
        input=replace(
            config.input,
            audio=replace(config.input.audio, mels=2 * patch, steps=6 * patch),
            video=replace(config.input.video, size=3 * patch),
        ),
        pretraining=replace(
            config.pretraining, pretrained=False, depth=1, options={**config.pretraining.options, **small}
        ),
    )
    preprocessing = prepare(config, ()).preprocessing
    model = start_model(config, preprocessing)
    sound = torch.randn(4, *preprocessing.spectrogram_shape)
    frames = torch.randn(4, 3, 3 * patch, 3 * patch)
    loss = model(sound, frames, model.draw(4, torch.Generator().manual_seed(0)))
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_a_spectrogram_of_the_papers_is_128_bands_by_1024_steps() -> None:
    for name in NAMES:
        if "audioset" in name:
            preprocessing = prepare(complete(read(name)), ()).preprocessing
            assert (preprocessing.spectrogram_shape, preprocessing.size) == ((128, 1024), 224)
            break


@pytest.mark.parametrize("name", [name for name in NAMES if "audioset" in name])
def test_updates_are_of_the_papers_size(name: str) -> None:
    config = read(name)
    clips = config.train.batch_size * config.train.accumulate
    assert clips == (48 if "cav_mae" in name else 64 if "release" in name else 1536)
    if cell := re.search(r"audio(\d+)_video(\d+)$", name):
        ratios = {
            f"{part}_ratios": [int(percent) / 100]
            for part, percent in zip(("audio", "video"), cell.groups(), strict=True)
        }
        assert config.pretraining.options == ratios
        assert config.pretraining.preset == "fixed_ratio"


def test_every_cell_of_table_4_is_there() -> None:
    cells = {match.groups() for name in NAMES if (match := re.search(r"audio(\d+)_video(\d+)$", name))}
    assert cells == {(a, v) for a in ("25", "50", "75") for v in ("25", "50", "75")}


def test_a_misspelt_setting_and_a_recipe_of_another_command_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"no setting 'pretraining\.objectiv'; did you mean 'pretraining\.objective'\?"
    ):
        parse_pretraining_config(["--pretraining.objectiv", "avsiam"])
    with pytest.raises(ConfigError, match=r"no setting 'encoder\.tower'"):
        refuse_unknown(["encoder.tower"], PretrainingRunConfig)
    with pytest.raises(ConfigError, match="run avtune pretrain pretrain/bandstand_nano_avsiam"):
        recipe_path("pretrain/bandstand_nano_avsiam")
    with pytest.raises(ConfigError, match="run avtune train bandstand/lavish_nano"):
        recipe_path("bandstand/lavish_nano", PretrainingRunConfig)
    assert not [name for name in recipe_names() if name.startswith("pretrain/")]
    assert "pretraining.options" in fields_of(PretrainingRunConfig())
