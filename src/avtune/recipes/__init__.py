"""Packaged recipes by name, and run configurations as YAML."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from avtune.config import PretrainingRunConfig, RunConfig
from avtune.errors import AvtuneError

FOLDER = Path(__file__).parent
PRETRAINING = "pretrain"
"""Folder of the recipes of ``avtune pretrain``; those of ``avtune train`` lie in the others."""
OPTIONS = ("encoder.options", "encoder.tuning_options", "head.options", "pretraining.options")
COMMANDS = {RunConfig: "train", PretrainingRunConfig: "pretrain"}
Config = TypeVar("Config", RunConfig, PretrainingRunConfig)


class ConfigError(AvtuneError):
    """A recipe or setting that does not exist, or a value that does not fit."""


def recipe_names(kind: type[RunConfig | PretrainingRunConfig] = RunConfig) -> list[str]:
    """Names of the packaged recipes of a kind, ``<dataset>/<method>_<tower>[_<size>]`` or ``pretrain/<...>``."""
    names = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yaml"))
    wanted = kind is PretrainingRunConfig
    return [name for name in names if name.startswith(f"{PRETRAINING}/") == wanted]


def recipe_path(name: str, kind: type[RunConfig | PretrainingRunConfig] = RunConfig) -> Path:
    """The file of a recipe.

    Args:
        name: A packaged name (``ave/lavish_swinv2_l``) or a path to a YAML file.
        kind: What it shall fill.

    Raises:
        ConfigError: There is neither.
    """
    names = recipe_names(kind)
    if name in names:
        return FOLDER / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(
            f"{name}: no such file; give a YAML file or a recipe that `avtune list recipes` shows"
        )
    close = difflib.get_close_matches(name, names, n=1)
    other = next((other for other in COMMANDS if other is not kind and name in recipe_names(other)), None)
    if other is not None:
        raise ConfigError(f"{name} is a recipe of another command; run avtune {COMMANDS[other]} {name}")
    raise ConfigError(
        f"no recipe is called {name!r}; "
        + (f"did you mean {close[0]!r}?" if close else "`avtune list recipes` shows them all")
    )


def parse_config(arguments: Iterable[str] = (), base: Path | Mapping[str, Any] | None = None) -> RunConfig:
    """A run configuration from a YAML file and command-line settings over it.

    Args:
        arguments: ``--section.field value`` or ``--section.field=value``.
        base: A YAML file that states some fields, or what it holds; the others keep their defaults.

    Raises:
        ConfigError: A name is unknown (the nearest right one is given) or a value does not fit its field.
    """
    return _parse(RunConfig, arguments, base)


def parse_pretraining_config(
    arguments: Iterable[str] = (), base: Path | Mapping[str, Any] | None = None
) -> PretrainingRunConfig:
    """A pretraining run's configuration, as :func:`parse_config` reads a run's."""
    return _parse(PretrainingRunConfig, arguments, base)


def parse_recipe(name: str | None, arguments: Iterable[str] = ()) -> RunConfig | PretrainingRunConfig:
    """The configuration of whichever command a recipe is of.

    Args:
        name: See :func:`recipe_path`; ``None``: the defaults of ``avtune train``.
        arguments: See :func:`parse_config`.

    Raises:
        ConfigError: There is no such recipe, or see :func:`parse_config`.
    """
    if name is None:
        return parse_config(arguments)
    if name in recipe_names(PretrainingRunConfig) or _has_pretraining(Path(name)):
        return parse_pretraining_config(arguments, recipe_path(name, PretrainingRunConfig))
    return parse_config(arguments, recipe_path(name))


def _has_pretraining(path: Path) -> bool:
    """Whether a YAML file says what is pretrained, which no recipe of ``avtune train`` does."""
    try:
        return "pretraining" in yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        return False


def _parse(kind: type[Config], arguments: Iterable[str], base: Path | Mapping[str, Any] | None) -> Config:
    parser = _parser(COMMANDS[kind])
    try:
        start: dict[str, Any] = {}
        if isinstance(base, Mapping):
            start = dict(base)
        elif base is not None:
            start = yaml.safe_load(base.read_text(encoding="utf-8")) or {}
            if not isinstance(start, dict):
                raise ConfigError(
                    f"{base}: not a configuration; it must hold sections such as data: and train:"
                )
        arguments = list(arguments)
        refuse_unknown([*_dotted(start), *setting_names(arguments)], kind)
        settings = parser.parse_object(start)
        settings = parser.parse_args(arguments, settings)
        built = parser.instantiate(settings)
    except ConfigError:
        raise
    except (ArgumentError, AvtuneError, TypeError, ValueError, yaml.YAMLError) as error:
        where = f"{base}: " if isinstance(base, Path) and not arguments else ""
        raise ConfigError(f"{where}{_one_line(error)}") from error
    return kind(**{name: getattr(built, name) for name in vars(kind()) if hasattr(built, name)})


@functools.cache
def _parser(command: str) -> ArgumentParser:
    (kind,) = (kind for kind, name in COMMANDS.items() if name == command)
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(kind, as_group=False)
    return parser


def to_yaml(config: RunConfig | PretrainingRunConfig) -> str:
    """A complete configuration as YAML that is read back to the same."""
    return str(yaml.safe_dump(_listed(asdict(config)), sort_keys=False, allow_unicode=True, width=110))


def fields_of(config: RunConfig | PretrainingRunConfig | None = None) -> list[str]:
    """Dotted names of all settings."""
    return _dotted(asdict(config or RunConfig()))


def _dotted(content: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in content.items():
        # Options are checked by the method, tuning or task that they are for, which knows them.
        if isinstance(value, dict) and f"{prefix}{key}" not in OPTIONS:
            names += _dotted(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def setting_names(arguments: Iterable[str]) -> list[str]:
    """Names of the settings in command-line words: ``data.root`` of ``--data.root=clips``."""
    return [match.group(1) for argument in arguments if (match := re.match(r"--([^=]+)", argument))]


def refuse_unknown(names: Iterable[str], kind: type[RunConfig | PretrainingRunConfig] = RunConfig) -> None:
    """Check names of settings.

    Args:
        names: Dotted names.
        kind: What they are settings of.

    Raises:
        ConfigError: One does not exist; the nearest right one is given.
    """
    known = fields_of(kind())
    sections = {name.rsplit(".", k)[0] for name in known for k in range(1, name.count(".") + 1)}
    for name in names:
        if name in known or name in sections or name.startswith(tuple(f"{options}." for options in OPTIONS)):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        last = [field for field in known if field.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        hint = last[0] if last else close[0] if close else None
        raise ConfigError(
            f"there is no setting {name!r}; "
            + (
                f"did you mean {hint!r}?"
                if hint
                else f"`avtune {COMMANDS[kind]} --print_config` shows them all"
            )
        )


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:4]) or type(error).__name__


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value
