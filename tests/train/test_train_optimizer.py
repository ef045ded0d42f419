from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_case import small_config, small_model

from avtune.config import OptimizerConfig
from avtune.train.optimizer import build_optimizer, parameter_groups, schedule_factor

SCHEDULES = ("constant", "cosine", "linear", "step")


@given(
    st.sampled_from(SCHEDULES), st.integers(1, 400), st.integers(1, 40), st.floats(0, 1), st.floats(0.01, 1),
    st.integers(1, 5),
)  # fmt: skip
def test_schedules_stay_in_range_and_rise_then_fall(
    name: str, steps: int, per_epoch: int, warmup: float, drop: float, every: int
) -> None:
    config = OptimizerConfig(schedule=name, warmup_share=warmup, step_factor=drop, step_epochs=every)
    factor = schedule_factor(config, steps=steps, steps_per_epoch=per_epoch)
    values = [factor(step) for step in range(steps)]
    assert all(0 <= value <= 1 for value in values)
    rise = round(warmup * steps)
    assert values[:rise] == sorted(values[:rise])
    assert all(value > 0 for value in values[:rise])
    assert values[rise:] == sorted(values[rise:], reverse=True)


def test_schedules_by_hand() -> None:
    def values(**settings: object) -> list[float]:
        factor = schedule_factor(OptimizerConfig(**settings), steps=10, steps_per_epoch=2)
        return [factor(step) for step in range(11)]

    assert values(schedule="constant", warmup_share=0.3)[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values(schedule="linear", warmup_share=0.0) == pytest.approx([1 - k / 10 for k in range(11)])
    cosine = values(schedule="cosine", warmup_share=0.0)
    assert cosine == pytest.approx([0.5 + 0.5 * math.cos(math.pi * k / 10) for k in range(11)])
    assert cosine[10] == 0
    step = values(schedule="step", warmup_share=0.0, step_epochs=2, step_factor=0.5)
    assert step == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_groups_hold_each_trained_weight_once_at_its_rate(name: str, kind: type) -> None:
    network = small_model(small_config({"train_norms": True})).network
    rates = OptimizerConfig(name=name, lr=1e-3, lr_head=2e-3, lr_tower=3e-3, weight_decay=0.1)
    optimizer = build_optimizer(network, rates)
    assert type(optimizer) is kind
    found: dict[int, tuple[float, float]] = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            assert id(weight) not in found
            found[id(weight)] = (group["lr"], group["weight_decay"])
    roles = set()
    for path, weight in network.named_parameters():
        if not weight.requires_grad:
            assert id(weight) not in found
            continue
        role = "head" if path.startswith("head.") else "method" if ".fusion." in path else "towers"
        roles.add(role)
        expected = {"head": 2e-3, "method": 1e-3, "towers": 3e-3}[role]
        assert found[id(weight)] == (expected, 0.1 if weight.ndim > 1 else 0.0), path
    assert roles == {"head", "method", "towers"}


def test_rates_left_open_are_the_methods() -> None:
    network = small_model(small_config({"train_norms": True})).network
    groups = parameter_groups(network, replace(OptimizerConfig(), lr=7e-4))
    assert {group["lr"] for group in groups} == {7e-4}
