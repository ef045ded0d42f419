from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_case import small_config, small_model

from avtune.config import HeadConfig, OptimizerConfig
from avtune.counting import count_parameters
from avtune.model import AudioVisualModel
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


def test_drops_begin_where_they_are_told_to() -> None:
    # AVSiam on AudioSet-2M: 0.75 from epoch 5 on; a learning-rate scheduler of torch says the same.
    config = OptimizerConfig(schedule="step", warmup_share=0.0, step_start=5, step_epochs=2, step_factor=0.75)
    factor = schedule_factor(config, steps=45, steps_per_epoch=3)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(range(5, 1000, 2)), gamma=0.75)
    for epoch in range(15):
        assert [factor(3 * epoch + k) for k in range(3)] == pytest.approx([scheduler.get_last_lr()[0]] * 3)
        optimizer.step()
        scheduler.step()


def test_a_whole_encoder_learns_layer_by_layer() -> None:
    config = small_config()
    encoder = replace(config.encoder, objective="avsiam", depth=2)
    config = replace(config, encoder=encoder, input=replace(config.input, segments=1))
    network = AudioVisualModel(replace(config, head=HeadConfig("classification")), ("bell", "drum")).network
    rates = OptimizerConfig(lr=1e-4, lr_head=1e-2, lr_joint=1e-3, weight_decay=0.1)
    groups = {str(group["name"]): group for group in parameter_groups(network, rates)}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "towers": 1e-4, "towers (no decay)": 1e-4, "joint": 1e-3, "joint (no decay)": 1e-3,
        "head": 1e-2, "head (no decay)": 1e-2,
    }  # fmt: skip
    counts = count_parameters(network).parts
    for part in ("towers", "joint", "head"):
        both = (groups[part], groups[f"{part} (no decay)"])
        assert counts[part] == sum(weight.numel() for group in both for weight in group["params"]) > 0  # type: ignore[attr-defined]
    unset = {
        str(group["name"]): group["lr"] for group in parameter_groups(network, OptimizerConfig(lr_tower=3e-4))
    }
    assert unset["joint"] == unset["towers"] == 3e-4
    assert unset["head"] == OptimizerConfig().lr


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
