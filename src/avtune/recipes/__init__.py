"""Packaged recipes by name, and run configurations as YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from avtune.config import RunConfig
from avtune.errors import AvtuneError

FOLDER = Path(__file__).parent
OPTIONS = ("encoder.options", "encoder.tuning_options", "head.options")


class ConfigError(AvtuneError):
    """A recipe or setting that does not exist, or a value that does not fit."""


def recipe_names() -> list[str]:
    """Names of the packaged recipes, ``<dataset>/<method>_<tower>[_<size>]``."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Args:
        name: A packaged name (``ave/lavish_swinv2_l``) or a path to a YAML file.

    Raises:
        ConfigError: There is neither.
    """
    if name in recipe_names():
        return FOLDER / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(
            f"{name}: no such file; give a YAML file or a recipe that `avtune list recipes` shows"
        )
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    raise ConfigError(
        f"no recipe is called {name!r}; "
        + (f"did you mean {close[0]!r}?" if close else "`avtune list recipes` shows them all")
    )


def config_parser() -> ArgumentParser:
    """A parser of every field of ``RunConfig``: ``--data.root``, ``--train.epochs`` and so on."""
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(RunConfig, as_group=False)
    return parser


def parse_config(arguments: Iterable[str] = (), base: Path | Mapping[str, Any] | None = None) -> RunConfig:
    """A run configuration from a YAML file and command-line settings over it.

    Args:
        arguments: ``--section.field value`` or ``--section.field=value``.
        base: A YAML file that states some fields, or what it holds; the others keep their defaults.

    Raises:
        ConfigError: A name is unknown (the nearest right one is given) or a value does not fit its field.
    """
    parser = config_parser()
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
        refuse_unknown([*_dotted(start), *setting_names(arguments)])
        settings = parser.parse_object(start)
        settings = parser.parse_args(arguments, settings)
        built = parser.instantiate(settings)
    except (ArgumentError, TypeError, ValueError, yaml.YAMLError) as error:
        where = f"{base}: " if isinstance(base, Path) and not arguments else ""
        raise ConfigError(f"{where}{_one_line(error)}") from error
    return _run_config(built)


def to_yaml(config: RunConfig) -> str:
    """A complete configuration as YAML that ``parse_config`` reads back to the same."""
    return str(yaml.safe_dump(_listed(asdict(config)), sort_keys=False, allow_unicode=True, width=110))


def fields_of(config: RunConfig | None = None) -> list[str]:
    """Dotted names of all settings."""
    return _dotted(asdict(config or RunConfig()))


def _run_config(built: Namespace) -> RunConfig:
    return RunConfig(**{name: getattr(built, name) for name in vars(RunConfig()) if hasattr(built, name)})


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


def refuse_unknown(names: Iterable[str]) -> None:
    """Check names of settings.

    Args:
        names: Dotted names.

    Raises:
        ConfigError: One does not exist; the nearest right one is given.
    """
    known = fields_of()
    sections = {name.rsplit(".", k)[0] for name in known for k in range(1, name.count(".") + 1)}
    for name in names:
        if name in known or name in sections or name.startswith(tuple(f"{options}." for options in OPTIONS)):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        last = [field for field in known if field.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        hint = last[0] if last else close[0] if close else None
        raise ConfigError(
            f"there is no setting {name!r}; "
            + (f"did you mean {hint!r}?" if hint else "`avtune train --print_config` shows them all")
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
