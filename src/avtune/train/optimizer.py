"""Parameter groups, optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from avtune.config import OptimizerConfig
from avtune.errors import AvtuneError
from avtune.tasks.network import part_of


def parameter_groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, object]]:
    """Trainable weights by role, each with its learning rate; matrices apart from what is never decayed.

    Args:
        network: A module whose parts :func:`avtune.tasks.network.part_of` knows by name.
        config: Rates; a rate left ``None`` is ``config.lr``.

    Returns:
        Groups ``method`` (fusion and tuning), ``gates`` (their scalars), ``head``, ``joint`` (a whole encoder's layers
        over both modalities), ``towers`` (what is trained of the towers, or a whole encoder), split by weight decay;
        empty ones left out.
    """
    rates = {
        "method": config.lr,
        "gates": config.lr_gate,
        "head": config.lr_head,
        "joint": config.lr_tower if config.lr_joint is None else config.lr_joint,
        "towers": config.lr_tower,
    }
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        members.setdefault((_role(name, weight), weight.ndim > 1), []).append(weight)
    return [
        {
            "name": role if decayed else f"{role} (no decay)",
            "params": weights,
            "lr": rates[role] if rates[role] is not None else config.lr,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (role, decayed), weights in members.items()
    ]


def _role(name: str, weight: nn.Parameter) -> str:
    part = part_of(name)
    return "gates" if part == "method" and weight.numel() == 1 else part


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over :func:`parameter_groups`.

    Raises:
        AvtuneError: Nothing is trained.
    """
    groups = parameter_groups(network, config)
    if not groups:
        raise AvtuneError(
            "neither the method nor the head has a weight to train; choose another encoder.fusion, encoder.tuning or "
            "head.preset"
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=config.betas)


def schedule_factor(config: OptimizerConfig, *, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of all learning rates at a given update.

    Args:
        config: Shape of the schedule.
        steps: Updates of the whole run.
        steps_per_epoch: Updates of an epoch.

    Returns:
        A function of the index of the update, from 0.
    """
    warmup = round(config.warmup_share * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if config.schedule == "linear":
            return max(0.0, 1 - done)
        if config.schedule == "step":
            epoch = step // steps_per_epoch
            start = config.step_epochs if config.step_start is None else config.step_start
            return float(config.step_factor ** max(0, (epoch - start) // config.step_epochs + 1))
        return 1.0

    return factor
