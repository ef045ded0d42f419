"""What a model costs: weights, multiply-adds, bytes kept for the backward pass, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avtune.config import RunConfig
from avtune.counting import Parameters, count_parameters, example_batch, saved_bytes
from avtune.model import AudioVisualModel


@dataclass(frozen=True)
class Cost:
    """What one clip costs.

    Attributes:
        parameters: Numbers of weights.
        tower_gmacs: Multiply-adds of both frozen towers, or of a whole encoder with its heads, 1e9 per clip.
        method_gmacs: Multiply-adds that the method and the head add.
        saved_mib: Bytes kept between forward and backward pass, 2^20 per clip.
        tower_saved_mib: The same where the towers alone carry gradients to their input.
        seconds: Forward and backward pass of one clip; ``None``: not measured.
    """

    parameters: Parameters
    tower_gmacs: float
    method_gmacs: float
    saved_mib: float
    tower_saved_mib: float
    seconds: float | None = None


TowerCosts: TypeAlias = dict[str, tuple[int, int]]
"""Multiply-adds and bytes kept of towers alone, by what they and their input are."""


def measure(
    config: RunConfig,
    labels: tuple[str, ...],
    *,
    repeats: int = 0,
    depth: int | None = None,
) -> Cost:
    """Measure a recipe at one clip.

    Counts come from the meta device, so that the largest towers need no memory; seconds, if asked for, from
    the CPU, with random weights.

    Args:
        config: The recipe.
        labels: Names of the classes.
        repeats: Passes to time; 0 leaves the time out.
        depth: Keep only this many blocks of each tower.
    """
    cost = measure_model(AudioVisualModel(config, labels, depth=depth, device="meta"), {}, depth=depth)
    if not repeats:
        return cost
    untrained = replace(config, encoder=replace(config.encoder, pretrained=False))
    return replace(cost, seconds=_seconds(AudioVisualModel(untrained, labels, depth=depth), repeats))


def measure_model(model: AudioVisualModel, known: TowerCosts, *, depth: int | None = None) -> Cost:
    """Count what a model on the meta device costs at one clip.

    Args:
        model: The model; it is in training mode afterwards.
        known: Towers that were measured before, which is half of the work; new ones are added.
        depth: Blocks that each of its towers was cut to, if it was.
    """
    total, saved = _training_pass(model)
    # A whole encoder is all there is.
    towers, tower_saved = _towers_cost(model, depth, known) if model.network.towers else (total, saved)
    return Cost(
        count_parameters(model.network), towers / 1e9, (total - towers) / 1e9, saved / 2**20,
        tower_saved / 2**20,
    )  # fmt: skip


def _towers_cost(whole: AudioVisualModel, depth: int | None, known: TowerCosts) -> tuple[int, int]:
    config = whole.config
    encoder = replace(
        config.encoder, fusion="frozen", preset=None, options={}, tuning=None, tuning_preset=None,
        tuning_options={},
    )  # fmt: skip
    plain = RunConfig(input=config.input, encoder=encoder)
    key = repr((plain, depth))
    if key not in known:
        model = AudioVisualModel(plain, whole.labels, depth=depth, device="meta")
        model.network.head = nn.Identity()
        known[key] = _training_pass(model)
    return known[key]


def _training_pass(model: AudioVisualModel) -> tuple[int, int]:
    """Multiply-adds of a forward pass in training, and the bytes that its encoder keeps for the backward pass."""
    batch = example_batch(model.preprocessing, "meta", question_length=model.task.question_length)
    network = model.network.train()
    if not network.towers:
        with FlopCounterMode(display=False) as counter, saved_bytes(model) as count:
            network(batch)
        return int(counter.get_total_flops()) // 2, count[0]
    frames = batch.frames.float().requires_grad_()
    spectrogram = batch.spectrogram.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        with saved_bytes(model) as count:
            encoded = network.encoder(spectrogram, frames)
        network.head(replace(encoded, valid=batch.valid, question=batch.question))
    return int(counter.get_total_flops()) // 2, count[0]


def _seconds(model: AudioVisualModel, repeats: int) -> float:
    batch = example_batch(model.preprocessing, question_length=model.task.question_length)
    model.network.train()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        outputs, _ = model.network(batch)
        outputs.sum().backward()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return sorted(times[1:])[repeats // 2]
