"""A training run small enough to be repeated many times: made-up clips, a randomly weighted nano tower of one block."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from made_up_clips import LABELS, SEGMENTS, MadeUpClips
from torch import Tensor, nn

from avtune.config import EncoderConfig, HeadConfig, InputConfig, OptimizerConfig, RunConfig, TrainConfig
from avtune.model import AudioVisualModel
from avtune.train import Trainer
from avtune.transforms import Batch

WITHOUT_BATCH_NORM = {"batch_norm": False}


class Dropping(nn.Module):
    """A head that draws random numbers: what a resumed run has to draw again."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.dropout = head, nn.Dropout(0.3)

    def forward(self, encoded: object) -> Tensor:
        return self.dropout(self.head(encoded))


def small_config(options: dict[str, object] | None = None, lr: float = 1e-2, **train: object) -> RunConfig:
    return RunConfig(
        input=InputConfig(segments=SEGMENTS),
        encoder=EncoderConfig(pretrained=False, options=dict(options or {})),
        head=HeadConfig(hidden=16),
        optimizer=OptimizerConfig(lr=lr, weight_decay=0.01),
        train=replace(TrainConfig(epochs=2, batch_size=4), **train),
    )


def small_model(config: RunConfig, *, dropout: bool = False) -> AudioVisualModel:
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, LABELS, depth=1)
    # Open gates: behind closed ones no gradient reaches the method's other weights in the first updates.
    for name, weight in model.network.named_parameters():
        if weight.requires_grad and name.endswith("gate"):
            nn.init.constant_(weight, 0.5)
    if dropout:
        model.network.head = Dropping(model.network.head)
    return model


def small_trainer(
    config: RunConfig,
    folder: Path,
    clips: MadeUpClips,
    validation: MadeUpClips | None = None,
    *,
    dropout: bool = False,
    **how: object,
) -> Trainer:
    model = small_model(config, dropout=dropout)
    return Trainer(
        model.network, model.task, model.config, folder, clips, validation, names=clips.names, **how
    )


def assert_equal(weights: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert weights.keys() == others.keys()
    differing = [name for name in weights if not torch.equal(weights[name], others[name])]
    assert not differing, f"{len(differing)} of {len(weights)} differ: {differing[:5]}"


def largest_difference(weights: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Of all weights, relative to the largest value of their own tensor."""
    assert weights.keys() == others.keys()
    return max(
        float(
            (weights[k].double() - others[k].double()).abs().max()
            / others[k].double().abs().max().clamp(min=1e-3)
        )
        for k in weights
    )


def stop_after(trainer: Trainer, step: int) -> None:
    """Make a trainer be asked to stop once that many updates are done."""
    update = trainer._update

    def stopping(window: list[Batch], clock: float) -> None:
        update(window, clock)
        trainer.request.asked = trainer.progress.step == step

    trainer._update = stopping  # type: ignore[method-assign]
