"""What a tuning trains is saved, loaded and resumed bit for bit, each weight once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tuning_cases import EVERY, away_from_start

from avtune.config import EncoderConfig, HeadConfig, InputConfig, OptimizerConfig, RunConfig, TrainConfig
from avtune.counting import count_parameters, example_batch
from avtune.model import AudioVisualModel, load
from avtune.recipes import parse_config, to_yaml
from avtune.train import Observer, Trainer
from avtune.train.optimizer import parameter_groups
from avtune.tuning import TUNINGS
from train.made_up_clips import MadeUpClips

LABELS = ("bell", "drum")


def model_of(
    name: str,
    preset: str,
    depth: int | None = None,
    options: dict[str, object] | None = None,
    save_every: int | None = None,
) -> AudioVisualModel:
    torch.manual_seed(0)
    config = RunConfig(
        input=InputConfig(segments=2),
        encoder=EncoderConfig(
            pretrained=False, fusion="cma", tuning=name, tuning_preset=preset, tuning_options=options or {}
        ),
        head=HeadConfig(hidden=16),
        optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.01),
        train=TrainConfig(epochs=2, batch_size=4, save_every=save_every),
    )
    model = AudioVisualModel(config, LABELS, depth=depth)
    away_from_start(model.network.encoder)
    return model


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_a_loaded_run_answers_as_the_saved_model(name: str, preset: str, tmp_path: Path) -> None:
    model = model_of(name, preset).eval()
    batch = example_batch(model.preprocessing)
    batch.spectrogram.normal_(generator=torch.Generator().manual_seed(3))
    batch.frames.random_(0, 255, generator=torch.Generator().manual_seed(3))
    model.save(tmp_path)
    with torch.no_grad():
        assert torch.equal(load(tmp_path).network(batch)[0], model.network(batch)[0])


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_the_file_holds_what_is_trained_and_nothing_frozen(name: str, preset: str, tmp_path: Path) -> None:
    model = model_of(name, preset)
    model.save(tmp_path)
    saved = load_file(tmp_path / "weights.safetensors")
    trained = {path: weight for path, weight in model.network.named_parameters() if weight.requires_grad}
    statistics = {path for path in saved if path.endswith(("running_mean", "running_var", "batches_tracked"))}
    assert set(saved) - statistics == set(trained)
    assert bool(statistics) == ((name, preset) in (("adapter", "lavish"), ("adapter", "lavish_table_5_lora")))
    assert count_parameters(model.network).trainable == sum(saved[path].numel() for path in trained)
    assert any("tower" in path for path in saved) == (
        name in ("norms", "full") or (name, preset) in (("adapter", "houlsby"), ("compacter", "paper"))
    )


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_groups_and_counts_tell_a_tuning_from_the_towers(name: str, preset: str) -> None:
    network = model_of(name, preset, depth=1).network
    rates = OptimizerConfig(lr=1e-3, lr_gate=2e-3, lr_head=3e-3, lr_tower=4e-3)
    rate_of = {
        id(weight): group["lr"] for group in parameter_groups(network, rates) for weight in group["params"]
    }
    parts = {"method": 0, "head": 0, "towers": 0}
    for path, weight in network.named_parameters():
        if not weight.requires_grad:
            assert id(weight) not in rate_of
            continue
        part = "head" if path.startswith("head.") else "towers" if "tower." in path else "method"
        expected = {"head": 3e-3, "towers": 4e-3, "method": 2e-3 if weight.numel() == 1 else 1e-3}[part]
        assert rate_of[id(weight)] == expected, path
        parts[part] += weight.numel()
    assert count_parameters(network).parts == parts


class Interrupted(Exception):
    pass


class InterruptAt(Observer):
    """Stands for a machine that goes down after an update."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, row: dict[str, object]) -> None:
        if row["step"] == self.step:
            raise Interrupted


@pytest.mark.parametrize(
    ("name", "options"),
    [("lora", {"dropout": 0.2}), ("adapter", {"batch_norm": True}), ("compacter", {}), ("full", {})],
)
def test_a_run_that_was_cut_short_goes_on_bit_for_bit(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    clips = MadeUpClips(7)

    def trainer(folder: str, observer: Observer | None = None) -> Trainer:
        preset = next(iter(TUNINGS[name].presets))
        model = model_of(name, preset, depth=1, options=options, save_every=1)
        return Trainer(
            model.network, model.task, model.config, tmp_path / folder, clips, names=clips.names,
            observer=observer,
        )  # fmt: skip

    whole = trainer("whole").fit().weights
    with pytest.raises(Interrupted):
        trainer("parts", InterruptAt(2)).fit()
    parts = trainer("parts").fit().weights
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[path], parts[path]) for path in whole)
    start = model_of(
        name, next(iter(TUNINGS[name].presets)), depth=1, options=options
    ).network.trained_state()
    still = [path for path in whole if path.startswith("encoder.") and torch.equal(whole[path], start[path])]
    assert not still


def test_a_tuning_and_its_options_are_set_from_words_and_survive_yaml(tmp_path: Path) -> None:
    config = parse_config(["--encoder.tuning", "prompts", "--encoder.tuning_options.length", "3"])
    assert config.encoder.tuning_options == {"length": 3}
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert parse_config(base=tmp_path / "c.yaml") == config
