"""Runs of a whole encoder small enough to be repeated: two blocks of random weights, clips with one class each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from made_up_clips import LABELS, MadeUpClips
from training_case import small_config

from avtune.config import AudioInput, EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.model import AudioVisualModel
from avtune.train import Trainer
from avtune.transforms import Sample


class WholeClips(MadeUpClips):
    """The same clips with one class each; the sound of a clip is one for all of its frames."""

    def __init__(self, count: int, **how: Any) -> None:
        super().__init__(count, **how)
        for k, clip in enumerate(self.clips):
            if isinstance(clip, Sample):
                prepared = replace(clip.prepared, spectrogram=clip.prepared.spectrogram[:1])
                self.clips[k] = replace(clip, prepared=prepared, target=torch.tensor(k % len(LABELS)))


def finetuning_config(objective: str = "avsiam", lr: float = 1e-3, **train: object) -> RunConfig:
    return replace(
        small_config(lr=lr, **train),
        input=InputConfig(segments=2, audio=AudioInput(preset="nano", placement="clip")),
        encoder=EncoderConfig(objective=objective, pretrained=False, depth=2, options={"decoder_depth": 1}),
        head=HeadConfig("classification", label_smoothing=0.1),
    )


def finetuner(config: RunConfig, folder: Path, clips: MadeUpClips, **how: Any) -> Trainer:
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, LABELS)
    return Trainer(model.network, model.task, model.config, folder, clips, names=clips.names, **how)
