"""Towers that many tests build: drawing the weights of the same large one again would take most of the time."""

import functools

import pytest

from avtune.backbones import Tower, create_tower


@functools.cache
def drawn_once(name: str, *, pretrained: bool, depth: int | None, device: str | None) -> Tower:
    """As :func:`avtune.backbones.create_tower`, the same tower for the same arguments."""
    return create_tower(name, pretrained=pretrained, depth=depth, device=device)


def draw_towers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models that are built from now on in a test share their frozen towers with those built before."""
    monkeypatch.setattr("avtune.encoder.create_tower", drawn_once)
