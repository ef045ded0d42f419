"""Reading the recorded arrays."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Golden:
    """One recorded file: configuration and arrays, as tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays.pop("config_json")))

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name].copy())

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays under ``prefix/``, by the rest of their names."""
        return {n.removeprefix(f"{prefix}/"): self[n] for n in self.arrays if n.startswith(f"{prefix}/")}


def golden_files(folder: Path, **wanted: Any) -> Iterator[Golden]:
    """Every recorded file below ``folder`` whose configuration has the wanted values."""
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if "config_json" not in arrays.files:
                continue
            config = json.loads(str(arrays["config_json"]))
        if all(config.get(key) == value for key, value in wanted.items()):
            yield Golden(path)
