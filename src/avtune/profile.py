"""What a model costs: weights, multiply-adds, bytes kept for the backward pass, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from avtune.config import EncoderConfig, RunConfig
from avtune.counting import Parameters, count_parameters, example_batch, multiply_adds, saved_bytes
from avtune.model import AudioVisualModel


@dataclass(frozen=True)
class Cost:
    """What one clip costs.

    Attributes:
        parameters: Numbers of weights.
        tower_gmacs: Multiply-adds of both frozen towers, 1e9 per clip.
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


def measure(
    config: RunConfig, labels: tuple[str, ...], *, repeats: int = 0, depth: int | None = None
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
    model = AudioVisualModel(config, labels, depth=depth, device="meta")
    plain_config = replace(config, encoder=_without_method(config.encoder))
    plain = AudioVisualModel(plain_config, labels, depth=depth, device="meta")
    total = multiply_adds(model.network, example_batch(model.preprocessing, "meta"))
    towers = _tower_multiply_adds(plain)
    seconds = None
    if repeats:
        untrained = replace(config, encoder=replace(config.encoder, pretrained=False))
        seconds = _seconds(AudioVisualModel(untrained, labels, depth=depth), repeats)
    return Cost(
        count_parameters(model.network), towers / 1e9, (total - towers) / 1e9, _saved(model) / 2**20,
        _saved(plain) / 2**20, seconds,
    )  # fmt: skip


def _without_method(config: EncoderConfig) -> EncoderConfig:
    return replace(
        config, fusion="frozen", preset=None, options={}, tuning=None, tuning_preset=None, tuning_options={}
    )


def _tower_multiply_adds(model: AudioVisualModel) -> int:
    batch = example_batch(model.preprocessing, "meta")
    return multiply_adds(model.network.encoder, batch.spectrogram, batch.frames.float())


def _saved(model: AudioVisualModel) -> int:
    batch = example_batch(model.preprocessing, "meta")
    model.network.train()
    frames = batch.frames.float().requires_grad_()
    spectrogram = batch.spectrogram.requires_grad_()
    with saved_bytes(model) as count:
        model.network.encoder(spectrogram, frames)
    return count[0]


def _seconds(model: AudioVisualModel, repeats: int) -> float:
    batch = example_batch(model.preprocessing)
    model.network.train()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        outputs, _ = model.network(batch)
        outputs.sum().backward()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return sorted(times[1:])[repeats // 2]
