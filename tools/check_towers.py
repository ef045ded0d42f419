"""Check that avtune's towers give what timm gives, bit for bit, over every architecture that timm knows.

Each architecture is built with random weights and few blocks; all that timm starts at zero, at one or near it
(norms, layer scales, biases, tokens) is randomised, so that a forgotten step shows. Prints a table and a count;
the exit status is 1 if any tower differs from timm's ``forward_features`` or fails in an unforeseen way.

    python tools/check_towers.py                 # all of them
    python tools/check_towers.py 'vit_*dinov3*'  # some
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones import BackboneError, Tower, create_tower
from avtune.backbones.create import view_of
from avtune.backbones.swin import SwinTower
from avtune.backbones.timm_loading import timm

SEED = 0
PATCHES_A_SIDE = 8


@dataclass(frozen=True)
class Finding:
    """What came out for one architecture; ``result`` is one of the words that ``main`` counts."""

    name: str
    result: str
    detail: str
    parameters: int = 0
    seconds: float = 0.0


def randomise(tower: Tower, seed: int = SEED) -> None:
    """Add noise to whatever is no matrix and no kernel: norms, scales, biases, tokens, positions."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in tower.parameters():
        if parameter.squeeze().ndim < 2 or parameter.ndim == 3:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)


def weights_of(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def timm_state(tower: Tower) -> dict[str, Tensor]:
    """The tower's weights under timm's own names."""
    state = dict(tower.model.state_dict())
    for number, stage in enumerate(tower.stages):
        prefix = f"layers.{number}." if isinstance(tower, SwinTower) else ""
        for place, index in enumerate(stage):
            view: Any = tower.blocks[index]
            state |= {
                f"{prefix}blocks.{place}.{key}": value for key, value in view.block.state_dict().items()
            }
            if view.enters_stage:
                merge = view.merge.state_dict()
                state |= {f"{prefix}downsample.{key}": value for key, value in merge.items()}
    return state


def compare(
    name: str, *, depth: int = 2, image_size: int | None = None, whole: Any = None, **timm_kwargs: Any
) -> Tower:
    """Build a tower and timm's model with the same weights and compare their features and pooled vectors.

    ``whole`` is timm's model on the meta device, where the caller has it already.

    Raises:
        ArithmeticError: They differ; the message says where and by how much.
    """
    torch.manual_seed(SEED)
    tower = create_tower(name, pretrained=False, depth=depth, image_size=image_size, **timm_kwargs)
    randomise(tower)
    arguments = dict(timm_kwargs)
    if image_size is not None:
        arguments["img_size"] = image_size
    if whole is None:
        whole = timm.create_model(name, device="meta", num_classes=0, **arguments)
    arguments |= type(tower).reduced(whole, depth)
    reference = timm.create_model(name, num_classes=0, **arguments)
    reference.load_state_dict(timm_state(tower), strict=True)
    # Frozen like the tower: torch picks other kernels, and rounds differently, where weights want gradients.
    reference.eval().requires_grad_(False)
    images = torch.randn(2, 3, tower.image_size, tower.image_size)
    with torch.inference_mode():
        expected, actual = reference.forward_features(images), tower(images)
        places = {
            "features": (expected.reshape(actual.shape), actual),
            "pooled": (reference.forward_head(expected, pre_logits=True), tower.pool(actual)),
        }
    for place, (theirs, ours) in places.items():
        if not torch.isfinite(theirs).all():
            raise ArithmeticError(f"{place} of timm are not finite: the comparison says nothing")
        if not torch.equal(theirs, ours):
            raise ArithmeticError(f"{place} differ by up to {(theirs - ours).abs().max().item():.3g}")
    return tower


def examine(name: str, depth: int, most: int) -> Finding:
    """Compare one architecture, unless it is refused or too large."""
    start = time.process_time()
    try:
        whole = timm.create_model(name, device="meta", num_classes=0)
    except Exception as error:
        return Finding(name, "not built by timm", f"{type(error).__name__}: {error}".splitlines()[0][:90])
    try:
        view_of(whole, name)
    except BackboneError as error:
        return Finding(name, "refused", str(error).removeprefix(name).strip())
    size = None
    if hasattr(whole, "blocks"):
        size = min(PATCHES_A_SIDE * whole.patch_embed.feat_ratio(), *whole.patch_embed.img_size)
    parameters = weights_of(whole) - sum(
        weights_of(block)
        for blocks in (
            [whole.blocks] if hasattr(whole, "blocks") else [stage.blocks for stage in whole.layers]
        )
        for block in blocks[depth:]
    )
    if parameters > most:
        return Finding(name, "skipped", f"{parameters / 1e6:.0f} M weights after the cut", parameters)
    try:
        tower = compare(name, depth=depth, image_size=size, whole=whole)
    except ArithmeticError as error:
        return Finding(name, "DIFFERENT", str(error), parameters)
    except Exception as error:
        return Finding(name, "FAILED", f"{type(error).__name__}: {error}".splitlines()[0], parameters)
    kinds = "+".join(sorted({type(view.block).__name__ for view in tower.blocks}))
    detail = f"{type(tower).__name__} of {kinds}, {len(tower.blocks)} blocks at {tower.image_size} px"
    return Finding(name, "identical", detail, parameters, time.process_time() - start)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["*"], help="patterns of timm names (default: all)")
    parser.add_argument("--depth", type=int, default=2, help="blocks to keep (of each stage)")
    parser.add_argument("--most", type=int, default=400, help="skip beyond so many million weights")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    names = sorted({name for pattern in options.names for name in timm.list_models(pattern)})
    findings = []
    for name in names:
        finding = examine(name, options.depth, options.most * 1_000_000)
        findings.append(finding)
        print(f"{name:55s} {finding.result:18s} {finding.detail[:110]}", flush=True)
    print(f"\ntorch {torch.__version__}, timm {timm.__version__}, {len(names)} architectures")
    for result, count in Counter(finding.result for finding in findings).most_common():
        print(f"{count:6d} {result}")
    bad = [finding for finding in findings if finding.result in ("DIFFERENT", "FAILED")]
    return 1 if bad or not any(finding.result == "identical" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
