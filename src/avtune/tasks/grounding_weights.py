"""The grounding that one run learned as the beginning of another."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from avtune.errors import AvtuneError

WEIGHTS, PREFIX = "weights.safetensors", "head.grounding."


@torch.no_grad()
def load_grounding(head: nn.Module, run: Path) -> None:
    """Put a finished run's grounding into a head.

    Args:
        head: Has a part ``grounding``; what of it the run lacks is refused, what the run has besides is not needed.
        run: Folder of the run, best of one that trained ``head.options.stage grounding``.

    Raises:
        AvtuneError: There are no such weights, or they are of another size.
    """
    option = f"head.options.grounding_from {run}"
    try:
        with safe_open(run / WEIGHTS, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118
            state = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise AvtuneError(
            f"{option}: {WEIGHTS} cannot be read ({error}); give the folder of a finished run"
        ) from error
    own = head.get_submodule("grounding").state_dict()
    if missing := sorted(own.keys() - state.keys()):
        raise AvtuneError(
            f"{option}: the run holds no {PREFIX}{missing[0]}; give a run of the task question_answering whose "
            "head.options.stage was grounding"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise AvtuneError(
                f"{option}: {PREFIX}{name} is {tuple(state[name].shape)} there and {tuple(value.shape)} here; use the "
                "same towers, head.hidden and head.options.project in both runs"
            )
        value.copy_(state[name])
