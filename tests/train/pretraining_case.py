"""A pretraining run small enough to be repeated many times: made-up clips, one randomly weighted block of nano."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from made_up_clips import LABELS, SEGMENTS, MadeUpClips

from avtune.config import (
    AudioInput,
    InputConfig,
    OptimizerConfig,
    PretrainingConfig,
    PretrainingRunConfig,
    PretrainingTrainConfig,
)
from avtune.runs.pretraining import prepare, start_model
from avtune.train.pretraining import Pretrainer
from avtune.train.pretraining_clips import OneFrame
from avtune.transforms import Sample

DECODER = {"decoder_depth": 1, "decoder_width": 16, "decoder_heads": 4}


def small_pretraining(
    objective: str = "avsiam", preset: str | None = None, options: dict[str, Any] | None = None, **train: Any
) -> PretrainingRunConfig:
    joint = {"joint_blocks": 1}
    return PretrainingRunConfig(
        input=InputConfig(segments=SEGMENTS, audio=AudioInput(preset="nano", placement="clip")),
        pretraining=PretrainingConfig(
            objective=objective, backbone="nano", preset=preset, pretrained=False, depth=1,
            options={**DECODER, **joint, **(options or {})},
        ),
        optimizer=OptimizerConfig(lr=1e-3),
        train=replace(PretrainingTrainConfig(epochs=2, batch_size=4, roll_steps=8, noise=0.1), **train),
    )  # fmt: skip


def searched_clips(count: int) -> MadeUpClips:
    """Clips to search, each of one class."""
    clips = MadeUpClips(count, seed=1)
    clips.clips = [
        replace(clip, target=clip.target[0])
        for clip in clips.clips
        if isinstance(clip, Sample) and clip.target is not None
    ]
    return clips


def small_pretrainer(
    config: PretrainingRunConfig,
    folder: Path,
    clips: MadeUpClips,
    validation: MadeUpClips | None = None,
    **how: Any,
) -> Pretrainer:
    preparation = prepare(config, LABELS)
    model = start_model(config, preparation.preprocessing)
    with torch.no_grad():
        for weight in model.parameters():
            # Learned positions, mask tokens and gates that begin at zero would hide what reaches them.
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight)
    held_out = None if validation is None else OneFrame(validation)
    return Pretrainer(
        model, preparation.preprocessing, config, folder, clips, held_out, preparation.task,
        names=clips.names, **how,
    )  # fmt: skip
