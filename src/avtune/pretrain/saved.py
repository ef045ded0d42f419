"""A pretrained model on disk: all of its weights, what it was built from, and how its clips are prepared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avtune.config import PretrainingConfig
from avtune.errors import AvtuneError
from avtune.files import appearing, write_atomically
from avtune.pretrain import create_pretraining
from avtune.pretrain.objective import PretrainingModel
from avtune.transforms import Preprocessing

WEIGHTS, PREPROCESSING = "weights.safetensors", "preprocessing.json"
FACTS = "pretraining"
"""Key of the weights' metadata under which the model's configuration stands."""


class PretrainedError(AvtuneError):
    """A folder that holds no whole pretrained model; the message says what to do."""


@dataclass(frozen=True)
class Pretrained:
    """What a folder holds.

    Attributes:
        model: With its weights.
        config: What it was built from.
        preprocessing: How files become what it takes: a spectrogram of its size, and frames of which it takes any.
    """

    model: PretrainingModel
    config: PretrainingConfig
    preprocessing: Preprocessing


def save_pretrained(
    folder: str | Path,
    weights: dict[str, Tensor],
    config: PretrainingConfig,
    preprocessing: Preprocessing,
) -> None:
    """Write what :func:`read_pretrained` needs.

    Args:
        folder: Made if it is absent.
        weights: The model's ``state_dict``.
        config: What the model was built from.
        preprocessing: How its clips were prepared.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    facts = {FACTS: json.dumps(asdict(config))}
    with appearing(folder / WEIGHTS) as partial:
        save_file(tensors, partial, metadata=facts)
    state = json.dumps(preprocessing.state(), indent=1)
    write_atomically(folder / PREPROCESSING, state.encode())


def holds_pretrained(folder: str | Path) -> bool:
    """Whether a folder is that of a finished pretraining run, not of another one."""
    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
            return FACTS in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_pretrained(folder: str | Path, *, device: torch.device | str | None = None) -> Pretrained:
    """Read a pretraining run.

    Args:
        folder: The folder of a finished run of ``avtune pretrain``.
        device: Where the model is put; ``None``: the CPU.

    Raises:
        PretrainedError: A file is missing or damaged, or they do not belong together.
    """
    folder = Path(folder)
    for name in (WEIGHTS, PREPROCESSING):
        if not (folder / name).is_file():
            raise PretrainedError(
                f"{folder}: no {name}, so this is no finished pretraining run; give the folder that `avtune pretrain` "
                "wrote, or run the same command again to finish it"
            )
    try:
        preprocessing = Preprocessing.from_state(
            json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        )
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if FACTS not in facts:
            raise PretrainedError(
                f"{folder}: {WEIGHTS} is of no pretraining run; give the folder that `avtune pretrain` wrote"
            )
        config = PretrainingConfig(**json.loads(facts[FACTS]))
    except (ValueError, TypeError, SafetensorError, OSError) as error:
        raise PretrainedError(f"{folder}: damaged ({error}); pretrain again or copy it again") from error
    model = build_model(config, preprocessing, pretrained=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise PretrainedError(
            f"{folder}: {WEIGHTS} does not fit {PREPROCESSING} and this version ({first}); pretrain again"
        ) from error
    return Pretrained(model.to(device).eval(), config, preprocessing)


def load_pretrained(folder: str | Path, *, device: torch.device | str | None = None) -> PretrainingModel:
    """The model of :func:`read_pretrained`: ``model.encoder`` has the weights that others go on with."""
    return read_pretrained(folder, device=device).model


def build_model(
    config: PretrainingConfig, preprocessing: Preprocessing, *, pretrained: bool
) -> PretrainingModel:
    """The model that a configuration states, for clips that are so prepared.

    Args:
        config: The model.
        preprocessing: Gives the size of spectrograms and frames.
        pretrained: Whether to load the backbone's weights; what a file replaces need not be.
    """
    return create_pretraining(
        config.objective,
        config.backbone,
        config.preset,
        config.options,
        pretrained=pretrained,
        depth=config.depth,
        spectrogram=preprocessing.spectrogram_shape,
        image_size=preprocessing.size,
    )
