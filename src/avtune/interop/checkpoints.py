"""Reading the files of weights that authors publish, without running anything in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avtune.backbones.timm_loading import timm
from avtune.interop.lavish import ConversionError


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """A published state dict, by the authors' names without the ``module.`` of parallel wrappers.

    Args:
        path: A safetensors file, or a state dict (or a checkpoint around one) that ``torch.load(weights_only=True)``
            reads.

    Raises:
        ConversionError: There is no such file, it holds more than tensors, or nothing that is a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path}: there is no such file of weights")
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        named = {str(name).removeprefix("module."): value for name, value in state.items()}
    except Exception as error:
        raise ConversionError(f"{path}: {_reason(path)}") from error
    if not named or not all(isinstance(value, Tensor) for value in named.values()):
        raise ConversionError(f"{path}: holds no state dict; give a file of named tensors")
    return named


def matched(
    state: Mapping[str, Tensor],
    pattern: re.Pattern[str],
    rename: Callable[[re.Match[str]], str],
    missing: str,
) -> dict[str, Tensor]:
    """The weights whose names match, under avtune's names.

    Args:
        state: The whole state dict.
        pattern: What a name, without the ``module.`` of parallel wrappers, has to match as a whole.
        rename: From a match to avtune's name.
        missing: What the error says where nothing matches.

    Raises:
        ConversionError: No name matches.
    """
    converted = {
        rename(match): value
        for name, value in state.items()
        if (match := pattern.fullmatch(name.removeprefix("module.")))
    }
    if not converted:
        raise ConversionError(missing)
    return converted


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str, mend: str) -> None:
    """Load a converted state dict, of which every tensor must fit and none be missing.

    Args:
        module: What receives it.
        state: Under avtune's names.
        source: What the weights came from, for the message.
        mend: What to do if they do not fit, for the message.

    Raises:
        ConversionError: A tensor is missing, left over or of another shape; nothing is loaded then.
    """
    wanted = module.state_dict()
    missing, strange = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    if missing or strange or shapes:
        raise ConversionError(
            f"{source} does not fit: {_some(missing)} missing, {_some(strange)} left over, {_some(shapes)} of another "
            f"shape; {mend}"
        )
    module.load_state_dict(dict(state))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} ({', '.join(names[:2])})" if names else "0"


def _reason(path: Path) -> str:
    """Why a file gives no state dict; torch's own words advise to trust it."""
    with path.open("rb") as file:
        head = file.read(9)
    # What torch.save writes, now and formerly, and the header that follows safetensors' eight bytes of length.
    if not (head.startswith((b"PK", b"\x80")) or head[8:] == b"{"):
        return (
            "is no file of weights; give a published checkpoint, or the folder of a run of `avtune pretrain`"
        )
    try:
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:
        unsafe = []
    if unsafe:
        return (
            f"no weights that can be read: it would call {', '.join(unsafe[:3])}; where it is trusted, save its state "
            "dict alone with torch.save(checkpoint['state_dict'], ...)"
        )
    return "no weights that can be read: it is cut off, damaged or holds no state dict; copy or download it again"
