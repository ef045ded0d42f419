"""avtune: adapt frozen, image-pretrained vision transformers to video with sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avtune.model import AudioVisualModel, create_model, load
    from avtune.tasks import Prediction

__version__ = "0.1.0"
__all__ = ["AudioVisualModel", "Prediction", "__version__", "create_model", "load"]


def __getattr__(name: str) -> Any:
    # Deferred, so that `avtune --help` and the light parts do not wait for PyTorch.
    if name in __all__:
        from avtune import model, tasks

        return getattr(tasks if name == "Prediction" else model, name)
    raise AttributeError(f"module 'avtune' has no attribute {name!r}")
