import functools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.backbones import Tower, create_tower
from avtune.config import DataConfig, RunConfig
from avtune.datasets import Collection, read
from avtune.datasets.bandstand import render_bandstand
from avtune.model import AudioVisualModel
from avtune.recipes import ConfigError, fields_of, parse_config, recipe_names, recipe_path, to_yaml
from avtune.runs import RunObserver, fit_model, prepare_clips
from avtune.tasks.network import part_of
from avtune.train.log import read_log

TASK_CLIPS = {
    "localization": "bandstand",
    "classification": "bandstand_classes",
    "segmentation": "bandstand",
    "question_answering": "questions",
    "parsing": "bandstand",
    "retrieval": "bandstand_pairs",
}
"""How the generated clips are read for each task."""


@functools.cache
def shallow_tower(name: str, *, pretrained: bool, depth: int | None, device: str | None) -> Tower:
    return create_tower(name, pretrained=pretrained, depth=depth, device=device)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_states_its_source(name: str) -> None:
    assert recipe_path(name).read_text().startswith("# ")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collection]:
    """For each task one generated clip to learn from; to learn what matches takes two."""
    root = tmp_path_factory.mktemp("bandstand")
    render_bandstand(root, 6, seed=5, workers=1)
    found = {}
    for task, reader in TASK_CLIPS.items():
        collection = read(DataConfig(name=reader, root=str(root)))
        by_file = {record.files: record for record in collection.splits["train"]}
        several = task in ("question_answering", "retrieval")
        chosen = tuple(by_file.values())[: 2 if several else 1]
        found[task] = replace(collection, splits={"train": chosen})
    return found


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_step_on_bandstand_with_shallow_towers(
    name: str, clips: dict[str, Collection], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Drawing the random weights of the same large tower again for each recipe would take most of the time.
    monkeypatch.setattr("avtune.encoder.create_tower", shallow_tower)
    # States of up to gigabytes; what is saved is looked at in tests of small models.
    monkeypatch.setattr("avtune.train.updates.save_state", lambda folder, state: None)
    config = parse_config(base=recipe_path(name))
    config = replace(
        config,
        encoder=replace(config.encoder, pretrained=False),
        input=replace(config.input, segments=1),
        # Half precision is slow where the processor has none.
        train=replace(
            config.train,
            epochs=1,
            batch_size=2,
            accumulate=1,
            crop_segments=None,
            precision="fp32",
            average_from=None,
        ),
    )
    depth = 1
    if config.encoder.objective is not None:
        # AVSiam's two multimodal layers begin as the last two blocks; all weights are trained, on fewer tokens here.
        depth = 2
        audio, video = replace(config.input.audio, steps=64), replace(config.input.video, size=64)
        config = replace(config, input=replace(config.input, audio=audio, video=video))
    clip = clips[config.head.task]
    model = AudioVisualModel(config, clip.labels, words=clip.words, depth=depth)
    before = {
        name: weight.clone()
        for name, weight in model.network.trained_state().items()
        if part_of(name) == "head"
    }
    observer = RunObserver()
    damaged = fit_model(model, config, tmp_path, prepare_clips(config, model, clip, observer), observer)
    assert not damaged
    (row,) = [row for row in read_log(tmp_path / "log.jsonl") if row["event"] == "step"]
    assert math.isfinite(row["loss"])
    after = model.network.trained_state()
    assert any(not torch.equal(weight, after[name]) for name, weight in before.items())


def test_configurations_survive_yaml(tmp_path: Path) -> None:
    config = parse_config(
        ["--data.root", "my clips", "--encoder.options.latents", "4", "--optimizer.betas=[0.8,0.99]",
         "--train.patience", "3", "--input.video.mean=[0.1,0.2,0.3]"]
    )  # fmt: skip
    assert config.encoder.options == {"latents": 4}
    assert config.optimizer.betas == (0.8, 0.99)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert parse_config(base=tmp_path / "c.yaml") == config


@given(
    field=st.sampled_from([name for name in fields_of() if name != "encoder.options"]), at=st.integers(0, 50)
)
def test_a_mistyped_setting_names_the_right_one(field: str, at: int) -> None:
    section, _, last = field.rpartition(".")
    at %= len(last)
    wrong = f"{section}.{last[:at]}{last[at + 1 :]}x"
    if wrong in fields_of():
        return
    with pytest.raises(ConfigError, match=f"there is no setting '{wrong}'; did you mean '"):
        parse_config([f"--{wrong}", "1"])


def test_errors_are_one_line_and_name_what_is_wrong(tmp_path: Path) -> None:
    cases = {
        "--train.epochs=many": "train.epochs",
        "--optimizer.name=sgd": "optimizer.name",
        "--train.precision=fp8": "train.precision",
    }
    for argument, name in cases.items():
        with pytest.raises(ConfigError, match=name) as caught:
            parse_config([argument])
        assert "\n" not in str(caught.value)
    for content in ("- a\n- list\n", "train: {epochs: [1,\n", "train:\n  epoch: 3\n", "nonsense"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ConfigError) as caught:
            parse_config(base=tmp_path / "bad.yaml")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean 'ave/lavish_vit_b'"):
        recipe_path("ave/lavish_vit_bb")
    with pytest.raises(ConfigError, match="no such file"):
        recipe_path(str(tmp_path / "absent.yaml"))


def test_defaults_are_a_configuration() -> None:
    assert parse_config() == RunConfig()
