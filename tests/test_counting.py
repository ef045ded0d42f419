"""Counting on a network."""

import gc
import weakref

import torch
from torch import nn

from avtune.counting import saved_bytes


class Watched(nn.Module):
    """Keeps its own output for the backward pass, as softmax, exp and sigmoid do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.storages: list[weakref.ref] = []

    def forward(self, x):
        out = (x @ self.weight).sigmoid()
        self.storages.append(weakref.ref(out))
        return out @ self.weight


def test_bytes_are_counted_once_and_without_weights():
    module = Watched()
    x = torch.randn(4, 8)
    with saved_bytes(module) as count:
        module(x)
    # The input, for the first product; the sigmoid's output, for itself and the second product.
    assert count[0] == 2 * 4 * 8 * 4


def test_what_was_counted_is_let_go():
    module = Watched()
    with saved_bytes(module):
        module(torch.randn(4, 8))
    gc.collect()
    alive = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (4, 8)]
    assert not alive, f"{len(alive)} activations outlive the counting"
    assert all(reference() is None for reference in module.storages)
