"""What a model costs: weights, multiply-adds, bytes kept for the backward pass, seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from avtune.backbones import unused_head_parameters
from avtune.config import EncoderConfig, RunConfig
from avtune.model import AudioVisualModel
from avtune.transforms import Batch


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights.

    Attributes:
        trainable: Weights that training changes, the task head included.
        frozen: Weights of the towers that it does not; a shared tower counts once.
        unused_head: Class head of the pretrained towers, which avtune leaves away but published totals hold.
        parts: Trainable weights by part: ``method``, ``head``, ``norms``.
    """

    trainable: int
    frozen: int
    unused_head: int
    parts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Everything that is built."""
        return self.trainable + self.frozen

    @property
    def total_published(self) -> int:
        """Everything with the unused class head, as the papers count."""
        return self.total + self.unused_head


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


def count_parameters(model: AudioVisualModel) -> Parameters:
    """Count a model's weights; works on the meta device too."""
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    parts = {"method": 0, "head": 0, "norms": 0}
    for name, count in trained.items():
        part = "head" if ".head." in name else "method" if ".fusion." in name else "norms"
        parts[part] += count
    encoder = model.network.encoder
    towers = {tower.name for tower in (encoder.audio_tower, encoder.video_tower)}
    return Parameters(sum(trained.values()), frozen, sum(map(unused_head_parameters, towers)), parts)


def describe(model: AudioVisualModel) -> str:
    """A model's weights and multiply-adds, a line each."""
    encoder, parameters = model.config.encoder, count_parameters(model)
    gmacs = _macs(model.network, model) / 1e9
    towers = {
        tower.name: None for tower in (model.network.encoder.video_tower, model.network.encoder.audio_tower)
    }
    lines = {
        "task": f"{model.config.head.task}, {len(model.labels)} labels and background",
        "towers": ", ".join(towers) + (" (shared by both streams)" if len(towers) == 1 else ""),
        "method": encoder.fusion,
        "trainable": millions(parameters.trainable),
        **{f"  {part}": millions(count) for part, count in parameters.parts.items() if count},
        "frozen": millions(parameters.frozen),
        "total": millions(parameters.total),
        "total as published": f"{millions(parameters.total_published)} (with the towers' unused class head)",
        "multiply-adds": f"{gmacs:.2f} G per clip of {model.preprocessing.segments} segments",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def millions(count: int) -> str:
    """A number of weights as people write it: ``4.645 M``."""
    return f"{count / 1e6:.3f} M"


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
    total, towers = _macs(model.network, model), _macs(plain.network.encoder, plain)
    seconds = None
    if repeats:
        untrained = replace(config, encoder=replace(config.encoder, pretrained=False))
        seconds = _seconds(AudioVisualModel(untrained, labels, depth=depth), repeats)
    return Cost(
        count_parameters(model), towers / 1e9, (total - towers) / 1e9, _saved(model) / 2**20,
        _saved(plain) / 2**20, seconds,
    )  # fmt: skip


def example_batch(model: AudioVisualModel, clips: int = 1) -> Batch:
    """A batch of made-up clips of the shapes that a model reads, on its device."""
    preprocessing, device = model.preprocessing, next(model.parameters()).device
    segments, size = preprocessing.segments, preprocessing.size
    rows, columns = preprocessing.spectrogram_shape
    return Batch(
        frames=torch.zeros(clips, segments, 3, size, size, dtype=torch.uint8, device=device),
        spectrogram=torch.zeros(clips, segments, rows, columns, device=device),
        has_audio=torch.ones(clips, dtype=torch.bool, device=device),
        has_video=torch.ones(clips, dtype=torch.bool, device=device),
        valid=torch.ones(clips, segments, dtype=torch.bool, device=device),
        target=None,
        names=["example"] * clips,
    )


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """Count what autograd keeps for the backward pass, each storage once, weights left out.

    Yields:
        A list whose only item grows with every tensor that is kept.
    """
    known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: list[Tensor] = []
    count = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known.add(storage._cdata)
            # Held, so that no later storage gets the same address.
            kept.append(tensor)
            count[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count
    kept.clear()


def _without_method(config: EncoderConfig) -> EncoderConfig:
    return replace(config, fusion="frozen", preset=None, options={})


def _macs(module: nn.Module, model: AudioVisualModel) -> int:
    batch = example_batch(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if module is model.network:
            module(batch)
        else:
            module(batch.spectrogram, batch.frames.float())
    return int(counter.get_total_flops()) // 2


def _saved(model: AudioVisualModel) -> int:
    batch = example_batch(model)
    model.network.train()
    frames = batch.frames.float().requires_grad_()
    spectrogram = batch.spectrogram.requires_grad_()
    with saved_bytes(model) as count:
        model.network.encoder(spectrogram, frames)
    return count[0]


def _seconds(model: AudioVisualModel, repeats: int) -> float:
    batch = example_batch(model)
    model.network.train()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        outputs, _ = model.network(batch)
        outputs.sum().backward()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return sorted(times[1:])[repeats // 2]
