"""Numbers that a setting cannot have are refused when a configuration is made, in one line that says what it takes."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from avtune.config import PretrainingRunConfig, RunConfig
from avtune.errors import AvtuneError
from avtune.ranges import RANGES
from avtune.recipes import ConfigError, fields_of, parse_config, parse_pretraining_config

LISTED = [f"{section}.{name}" for section, settings in RANGES.items() for name in settings]


def test_every_listed_setting_exists() -> None:
    assert set(LISTED) <= {*fields_of(RunConfig()), *fields_of(PretrainingRunConfig())}


@pytest.mark.parametrize("config", [RunConfig(), PretrainingRunConfig()])
def test_defaults_are_in_their_ranges(config: RunConfig | PretrainingRunConfig) -> None:
    for section, settings in asdict(config).items():
        for name, allowed in RANGES[section].items():
            value = settings.get(name)
            assert value is None or allowed.holds(value), f"{section}.{name}"


@pytest.mark.parametrize("name", LISTED)
def test_a_number_below_its_range_is_refused(name: str, tmp_path: Path) -> None:
    parse = parse_config if name in fields_of(RunConfig()) else parse_pretraining_config
    with pytest.raises(
        AvtuneError, match=rf"^{re.escape(name)} is -1(\.0)?; set it to (0|1|a number) "
    ) as caught:
        parse([f"--{name}=-1"])
    assert "\n" not in str(caught.value)
    section, _, field = name.partition(".")
    (tmp_path / "recipe.yaml").write_text(f"{section}: {{{field}: -1}}\n")
    with pytest.raises(ConfigError, match=f"recipe.yaml: {name} is -1"):
        parse(base=tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epochs=0", "1 or more"),
        ("train.batch_size=0", "1 or more"),
        ("train.accumulate=0", "1 or more"),
        ("train.save_every=0", "1 or more"),
        ("train.mixup=1.5", "a number from 0 to 1"),
        ("train.flip=.nan", "a number from 0 to 1"),
        ("head.dropout=1.0", "a number from 0 to below 1"),
        ("data.cache_gigabytes=0", "a number above 0"),
        ("optimizer.step_epochs=0", "1 or more"),
        ("optimizer.lr=.nan", "0 or more"),
    ],
)
def test_the_ends_of_ranges(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"; set it to {words}$"):
        parse_config([f"--{setting}"])


def test_the_largest_and_smallest_numbers_of_a_range_are_taken() -> None:
    config = parse_config(
        ["--train.flip=1", "--train.mixup=0", "--data.workers=0", "--optimizer.warmup_share=1.0"]
    )
    assert (config.train.flip, config.train.mixup, config.data.workers) == (1.0, 0.0, 0)
