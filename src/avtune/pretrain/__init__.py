"""Self-supervised pretraining on sound and frames: objectives by name, listed in the dict at the foot of this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avtune.pretrain.avsiam import PRESETS as AVSIAM_PRESETS
from avtune.pretrain.avsiam import Avsiam, AvsiamSettings, create_avsiam
from avtune.pretrain.cav_mae import PRESETS as CAV_MAE_PRESETS
from avtune.pretrain.cav_mae import CavMae, CavMaeSettings, create_cav_mae
from avtune.pretrain.classifiers import AvsiamClassifier, CavMaeClassifier
from avtune.pretrain.objective import Masks, PretrainingLoss, PretrainingModel

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
    "create_avsiam",
    "create_cav_mae",
]


@dataclass(frozen=True)
class Objective:
    """An entry of the table of pretraining objectives.

    Attributes:
        title: What it is, in a line.
        paper: Where it is published.
        create: Builds the model; see :func:`avtune.pretrain.avsiam.create_avsiam` for its arguments.
        presets: Named settings; the first is the default.
    """

    title: str
    paper: str
    create: Callable[..., PretrainingModel]
    presets: Mapping[str, Any]


OBJECTIVES: dict[str, Objective] = {
    "avsiam": Objective(
        "one transformer for sound and frames; contrast under many masking ratios, and reconstruction",
        "Lin and Bertasius, 2024",
        create_avsiam,
        AVSIAM_PRESETS,
    ),
    "cav_mae": Objective(
        "a transformer for each and joint layers; contrast and reconstruction of what three quarters hide",
        "Gong et al., ICLR 2023",
        create_cav_mae,
        CAV_MAE_PRESETS,
    ),
}
