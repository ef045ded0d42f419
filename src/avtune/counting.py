"""Counting on a network: its weights, its multiply-adds, what it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from avtune.backbones import unused_head_parameters
from avtune.tasks.network import TaskNetwork, part_of
from avtune.transforms import Batch, Preprocessing


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights.

    Attributes:
        trainable: Weights that training changes, the task head included.
        frozen: Weights of the towers that it does not; a shared tower counts once.
        unused_head: Class head of the pretrained towers, which avtune leaves away but published totals hold.
        parts: Trainable weights by part: ``method`` (fusion and tuning), ``head``, ``towers`` (what they free, or a
            whole encoder), and of a whole encoder ``joint``, its layers over both modalities.
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


def count_parameters(network: TaskNetwork) -> Parameters:
    """Count a network's weights; works on the meta device too."""
    trained = {name: weight.numel() for name, weight in network.named_parameters() if weight.requires_grad}
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    parts: dict[str, int] = {"method": 0, "head": 0, "towers": 0}
    for name, count in trained.items():
        parts[part_of(name)] = parts.get(part_of(name), 0) + count
    # Two towers over the same weights, of which a tuning copied some, came from one pretrained model with one head.
    towers = {id(next(tower.parameters())): tower.name for tower in network.towers.values()}
    return Parameters(sum(trained.values()), frozen, sum(map(unused_head_parameters, towers.values())), parts)


def millions(count: int) -> str:
    """A number of weights as people write it: ``4.645 M``."""
    return f"{count / 1e6:.3f} M"


def example_batch(
    preprocessing: Preprocessing, device: torch.device | str = "cpu", clips: int = 1, question_length: int = 0
) -> Batch:
    """A batch of made-up clips of the shapes that preprocessing gives, with questions of so many words."""
    segments, size = preprocessing.segments, preprocessing.size
    rows, columns = preprocessing.spectrogram_shape
    return Batch(
        frames=torch.zeros(clips, segments, 3, size, size, dtype=torch.uint8, device=device),
        spectrogram=torch.zeros(clips, preprocessing.sounds, rows, columns, device=device),
        has_audio=torch.ones(clips, dtype=torch.bool, device=device),
        has_video=torch.ones(clips, dtype=torch.bool, device=device),
        valid=torch.ones(clips, segments, dtype=torch.bool, device=device),
        target=None,
        names=["example"] * clips,
        question=torch.zeros(clips, question_length, dtype=torch.int64, device=device)
        if question_length
        else None,
    )


def multiply_adds(module: nn.Module, *inputs: Any) -> int:
    """Multiply-adds of a forward pass: half of what is counted as floating-point operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2


@contextmanager
def saved_bytes(module: nn.Module) -> Iterator[list[int]]:
    """Count what autograd keeps for the backward pass, each storage once, weights left out.

    Yields:
        A list whose only item grows with every tensor that is kept.
    """
    known = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: list[Tensor] = []
    count = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known.add(storage._cdata)
            # Held, so that no later storage gets the same address.
            kept.append(tensor)
            count[0] += storage.nbytes()
        # A step that keeps its own output would otherwise keep itself, and all before it, for good.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count
    kept.clear()
