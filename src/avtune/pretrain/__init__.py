"""Self-supervised pretraining on sound and frames: objectives by name, listed in the dict at the foot of this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from avtune.options import choose, chosen
from avtune.pretrain.avsiam import PRESETS as AVSIAM_PRESETS
from avtune.pretrain.avsiam import Avsiam, AvsiamSettings
from avtune.pretrain.backbone import Backbone, take_backbone
from avtune.pretrain.cav_mae import PRESETS as CAV_MAE_PRESETS
from avtune.pretrain.cav_mae import CavMae, CavMaeSettings
from avtune.pretrain.classifiers import AvsiamClassifier, CavMaeClassifier
from avtune.pretrain.objective import Masks, PretrainingLoss, PretrainingModel
from avtune.pretrain.siamese import SPECTROGRAM

__all__ = [
    "OBJECTIVES",
    "Avsiam",
    "AvsiamClassifier",
    "AvsiamSettings",
    "CavMae",
    "CavMaeClassifier",
    "CavMaeSettings",
    "Masks",
    "Objective",
    "PretrainingLoss",
    "PretrainingModel",
    "create_pretraining",
]


@dataclass(frozen=True)
class Objective:
    """An entry of the table of pretraining objectives.

    Attributes:
        title: What it is, in a line.
        paper: Where it is published.
        build: Makes the model of a backbone, settings, and mel bands and steps of the sound.
        backbone: The transformer that its authors begin from.
        sound: The sound preset that its authors prepare with.
        presets: Named settings; the first is the default.
    """

    title: str
    paper: str
    build: Callable[[Backbone, Any, tuple[int, int]], PretrainingModel]
    backbone: str
    sound: str
    presets: Mapping[str, Any]


def create_pretraining(
    name: str,
    backbone: str | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    pretrained: bool = True,
    depth: int | None = None,
    spectrogram: tuple[int, int] = SPECTROGRAM,
    image_size: int | None = None,
    device: torch.device | str | None = None,
) -> PretrainingModel:
    """A model before its pretraining.

    Args:
        name: Key of ``OBJECTIVES``.
        backbone: Which transformer it begins from, see :func:`avtune.pretrain.backbone.take_backbone`; ``None``: that
            of the authors.
        preset: Key of the objective's presets; ``None``: its first.
        options: Settings that differ from the preset.
        pretrained: Begin from the backbone's weights.
        depth: Keep only the backbone's first blocks.
        spectrogram: Mel bands and steps of the sound.
        image_size: Side of the frames; ``None``: the backbone's.
        device: Where it is built; ``meta`` to count only.

    Raises:
        avtune.options.OptionError: There is no such objective, preset or option.
        avtune.backbones.tower.BackboneError: The backbone cannot be had, shared or taken apart.
        AvtuneError: Settings that contradict each other, or too few mel bands or steps for a patch.
    """
    objective = choose("objective", name, OBJECTIVES)
    settings = chosen(name, objective.presets, preset, options)
    parts = take_backbone(
        backbone or objective.backbone,
        pretrained=pretrained,
        depth=depth,
        image_size=image_size,
        device=device,
    )
    return objective.build(parts, settings, spectrogram)


OBJECTIVES: dict[str, Objective] = {
    "avsiam": Objective(
        "one transformer for sound and frames; contrast under many masking ratios, and reconstruction",
        "Lin and Bertasius, 2024",
        Avsiam,
        "vit_base_patch16_224.augreg_in21k",
        "avsiam",
        AVSIAM_PRESETS,
    ),
    "cav_mae": Objective(
        "a transformer for each and joint layers; contrast and reconstruction of what three quarters hide",
        "Gong et al., ICLR 2023",
        CavMae,
        "vit_base_patch16_224.mae",
        "cav_mae",
        CAV_MAE_PRESETS,
    ),
}
