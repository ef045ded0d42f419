"""Layers written out in numpy loops, one value at a time where it helps to see what is summed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

Array = npt.NDArray[np.float64]


def array(value: Any) -> Array:
    return value.detach().numpy().astype(np.float64)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(layer: nn.Linear, x: Array) -> Array:
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def layer_norm(norm: nn.LayerNorm, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    return scaled * array(norm.weight) + array(norm.bias)


def lstm(layer: nn.LSTM, x: Array) -> Array:
    """(T, dim) to states (T, hidden), from first to last."""
    into, across = array(layer.weight_ih_l0), array(layer.weight_hh_l0)
    bias = array(layer.bias_ih_l0) + array(layer.bias_hh_l0)
    state = memory = np.zeros(layer.hidden_size)
    states = []
    for row in x:
        gates = into @ row + across @ state + bias
        enter, forget, content, out = np.split(gates, 4)
        memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(content)
        state = sigmoid(out) * np.tanh(memory)
        states.append(state)
    return np.array(states)


def both_ways(layer: Any, x: Array, there: npt.NDArray[np.bool_]) -> Array:
    """A bidirectional LSTM over the segments that exist, as if there were no others; zeros elsewhere."""
    result = np.zeros((len(x), 2 * layer.ahead.hidden_size))
    kept = x[there]
    result[there] = np.concatenate([lstm(layer.ahead, kept), lstm(layer.back, kept[::-1])[::-1]], axis=-1)
    return result


def attention(layer: nn.MultiheadAttention, queries: Array, keys: Array) -> Array:
    """Multi-head attention (T, dim) over keys (S, dim)."""
    dim, heads = layer.embed_dim, layer.num_heads
    weights, biases = np.split(array(layer.in_proj_weight), 3), np.split(array(layer.in_proj_bias), 3)
    q, k, v = (
        x @ w.T + b for x, w, b in zip((queries, keys, keys), weights, biases, strict=True)
    )  # fmt: skip
    size = dim // heads
    result = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(q)):
            shares = softmax(np.array([q[t, part] @ k[s, part] for s in range(len(k))]) / np.sqrt(size))
            result[t, part] = sum(share * v[s, part] for s, share in enumerate(shares))
    return linear(layer.out_proj, result)
