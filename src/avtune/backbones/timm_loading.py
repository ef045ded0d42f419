"""One place that imports timm, so that it also works where torchvision lacks its compiled operators."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_kept: list[Any] = []


def _define_missing_operators() -> None:
    # Typed as Any: whether its methods are annotated differs between versions of torch.
    make_library: Any = torch.library.Library
    library = make_library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The operators vanish with the object that defined them.
    _kept.append(library)


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    # A torchvision built for another torch: timm imports it but uses none of its operators. They may be
    # defined only after this failure: where torchvision's own library loads, a second definition aborts.
    for name in [n for n in sys.modules if n.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    _define_missing_operators()
    return importlib.import_module("timm")


timm = _import_timm()
