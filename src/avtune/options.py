"""From a method's preset and the options beside it to its settings, with errors that name the mend."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avtune.errors import AvtuneError

Settings = TypeVar("Settings")


class OptionError(AvtuneError):
    """A method, preset or option that does not exist, or a value it cannot take."""


def nearest(name: str, known: list[str]) -> str:
    """Words that point from a wrong name to the right one, or that list what there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"


def choose(kind: str, name: str, table: Mapping[str, Settings]) -> Settings:
    """``table[name]``, or an error with the nearest right name.

    Args:
        kind: What the table holds, for the message.
        name: The key asked for.
        table: What there is.

    Raises:
        OptionError: If ``name`` is not in ``table``.
    """
    if name not in table:
        raise OptionError(f"unknown {kind} {name!r}; {nearest(name, list(table))}")
    return table[name]


def settle(method: str, start: Settings, options: Mapping[str, Any]) -> Settings:
    """The settings ``start`` with ``options`` put over them.

    Args:
        method: Name of the method, for messages.
        start: A preset.
        options: Values by field name.

    Raises:
        OptionError: If a name is no field, or a value is not of the field's type.
    """
    hints = get_type_hints(type(start))
    names = [field.name for field in fields(start)]  # type: ignore[arg-type]
    settled: dict[str, Any] = {}
    for name, value in options.items():
        if name not in names:
            raise OptionError(f"{method} has no option {name!r}; {nearest(name, names)}")
        settled[name] = _fit(method, name, value, hints[name])
    return replace(start, **settled)  # type: ignore[type-var]


def chosen(
    method: str, presets: Mapping[str, Settings], preset: str | None, options: Mapping[str, Any] | None
) -> Settings:
    """The settings that a preset's name and options over it state.

    Args:
        method: Name of the method, for messages.
        presets: Named settings; the first is the default.
        preset: Key of ``presets``; ``None``: the first.
        options: Values by field name; ``None``: none differ.

    Raises:
        OptionError: There is no such preset or field, or a value is not of the field's type.
    """
    start = choose(f"preset of {method}", preset or next(iter(presets)), presets)
    return settle(method, start, options or {})


def _fit(method: str, name: str, value: Any, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return value
        elif kind is NoneType:
            if value is None:
                return None
        elif get_origin(kind) is tuple:
            if isinstance(value, list | tuple):
                return tuple(value)
        elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(kind, type) and type(value) is kind:
            return value
    allowed = " or ".join(map(_words, kinds))
    raise OptionError(f"{method} option {name!r} cannot be {value!r}; it takes {allowed}")


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list in brackets, such as [0.5]"
    return "null" if kind is NoneType else str(getattr(kind, "__name__", kind))
