"""Towers by name: timm's models with or without pretrained weights, towers for sound, the bundled nano."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avtune.backbones import ast, htsat
from avtune.backbones.eva import EvaBlock, EvaBlockPostNorm, EvaTower
from avtune.backbones.pretrained import (
    at_hand,
    concerns_network,
    in_one_line,
    load_file,
    not_fetched,
    put_by_hand,
    tags_of,
    weights_source,
)
from avtune.backbones.swin import SwinTower
from avtune.backbones.swin_v2 import SwinV2Tower
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError, Tower, square_side
from avtune.backbones.vit import Block, ResPostBlock, ViTTower

FAMILIES = "ViT (DeiT, CLIP, DINOv2, SigLIP), EVA-02, Perception Encoder, DINOv3, Swin, Swin-V2; for sound: AST, HTS-AT"

VIEWS: dict[type[nn.Module], type[Tower]] = {
    timm.models.vision_transformer.VisionTransformer: ViTTower,
    timm.models.eva.Eva: EvaTower,
    timm.models.swin_transformer.SwinTransformer: SwinTower,
    timm.models.swin_transformer_v2.SwinTransformerV2: SwinV2Tower,
}
"""Which tower sees which of timm's architectures."""

OWN_NAMES = ("nano", "htsat", *ast.AST_VARIANTS)
"""Names that are avtune's, not timm's."""

SEQUENTIAL_BLOCKS = (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm)


def create_tower(
    name: str,
    *,
    pretrained: bool = True,
    depth: int | None = None,
    device: torch.device | str | None = None,
    image_size: int | None = None,
    checkpoint_path: str | Path | None = None,
    **timm_kwargs: Any,
) -> Tower:
    """Build a frozen tower.

    Args:
        name: ``nano`` for the bundled backbone; ``ast`` or ``htsat`` for sound (see
            ``avtune.backbones.ast.AST_VARIANTS``); or any name that ``timm.create_model`` takes and whose
            architecture avtune can see: ``vit_base_patch16_224.augreg_in21k``,
            ``swinv2_large_window12_192.ms_in22k``, ``hf-hub:...``, ``local-dir:...``.
        pretrained: Load timm's weights, from the Hugging Face cache or through the network. Those of ``ast``
            and ``htsat`` cannot be fetched: they are looked for in torch's folder of checkpoints.
        depth: Keep only the first blocks (for tests and studies); where there are stages, at most this many
            of each, so that the final norm still fits.
        device: Where the tower is built; on ``meta`` nothing is computed, loaded or allocated.
        image_size: Side of the square images it shall take, if not the one it was trained on.
        checkpoint_path: A local file of weights (safetensors, or a state dict that ``torch.load`` reads
            with ``weights_only=True``) in timm's naming, used instead of timm's own weights. For ``ast`` and
            ``htsat``: the file that their authors published.
        **timm_kwargs: Further arguments of ``timm.create_model``; for an AST ``position_fit`` (``cut`` or
            ``bilinear``).

    Returns:
        The tower, frozen and in evaluation mode.

    Raises:
        BackboneError: No such name (the nearest ones are given), an architecture that cannot be seen as
            sequential branches, or weights that could not be fetched or do not fit.
    """
    if depth is not None and depth < 1:
        raise BackboneError(f"depth must be at least 1, not {depth}")
    if image_size is not None:
        timm_kwargs["img_size"] = image_size
    file = None if checkpoint_path is None else Path(checkpoint_path)
    on_meta = device is not None and torch.device(device).type == "meta"
    fetch = pretrained and file is None and not on_meta
    if name in ast.AST_VARIANTS:
        return _ast(name, fetch, depth, device, None if on_meta else file, **timm_kwargs)
    if name == "htsat":
        return _htsat(fetch, depth, device, None if on_meta else file, **timm_kwargs)
    if name == "nano":
        model: Any = _nano(fetch, **timm_kwargs).to(device)
    else:
        model = _from_timm(name, fetch, depth if file is None else None, device, timm_kwargs)
    if file is not None and not on_meta:
        load_file(model, file, name)
    return as_tower(model, name, depth=depth)


def _from_timm(
    name: str,
    fetch: bool,
    depth: int | None,
    device: torch.device | str | None,
    arguments: dict[str, Any],
) -> Any:
    """A timm model without its class head, with all blocks if ``fetch`` and else with ``depth`` of them."""
    source = at_hand(name)
    headless = {**arguments, "num_classes": 0}
    # Looking at the architecture first costs nothing and refuses before anything is fetched.
    blueprint = _build(source, device="meta", **headless)
    view = view_of(blueprint, name)
    square_side(blueprint, name)
    if view is EvaTower:
        # Rotary tables are then computed for the grid at hand instead of being kept for one size.
        headless["dynamic_img_size"] = True
    if not fetch:
        if depth is not None:
            headless |= view.reduced(blueprint, depth)
        elif view is not EvaTower and device is not None and torch.device(device).type == "meta":
            return blueprint
        return _build(source, device=device, **headless)
    del headless["num_classes"]
    given = headless.pop("pretrained_cfg_overlay", None) or {}
    overlay = {**weights_source(source, blueprint.pretrained_cfg), **given}
    # With its head the model takes the weights whole: timm tolerates missing ones when the head differs.
    model = _build(source, pretrained=True, device=device, pretrained_cfg_overlay=overlay, **headless)
    model.reset_classifier(0)
    return model


def _nano(pretrained: bool, img_size: int | None = None, **options: Any) -> Any:
    from avtune.backbones.nano import create_nano

    if options:
        raise BackboneError(f"the nano tower has no options; leave out {', '.join(options)}")
    model: Any = create_nano(pretrained=pretrained)
    if img_size is not None:
        model.set_input_size(img_size=(img_size, img_size))
    return model


def _ast(
    name: str,
    fetch: bool,
    depth: int | None,
    device: torch.device | str | None,
    file: Path | None,
    *,
    position_fit: ast.PositionFit = "cut",
    **options: Any,
) -> Tower:
    _refuse_options(name, options, "position_fit")
    variant = ast.AST_VARIANTS[name]
    if fetch and variant.audioset:
        file = put_by_hand(name, ast.AUDIOSET_FILE, ast.AUDIOSET_SOURCE)
    body = _from_timm(
        variant.body, fetch and not variant.audioset, depth if file is None else None, device, {}
    )
    if file is not None and not variant.audioset:
        load_file(body, file, variant.body)
    table_grid = ast.hear(body, audioset=variant.audioset)
    if file is not None and variant.audioset:
        ast.load_audioset(body, file, name)
    return ast.ASTTower(body, name=name, depth=depth, table_grid=table_grid, position_fit=position_fit)


def _htsat(
    fetch: bool, depth: int | None, device: torch.device | str | None, file: Path | None, **options: Any
) -> Tower:
    _refuse_options("htsat", options, "no others")
    if fetch:
        file = put_by_hand("htsat", htsat.HTSAT_FILE, htsat.HTSAT_SOURCE)
    model = htsat.build_htsat(depth if file is None else None, device)
    if file is not None:
        htsat.load_htsat(model, file, "htsat")
    return htsat.HTSATTower(model, name="htsat", depth=depth)


def _refuse_options(name: str, options: dict[str, Any], known: str) -> None:
    if options:
        given = ", ".join("image_size" if option == "img_size" else option for option in options)
        raise BackboneError(f"{name} has no option {given}; leave it out (there is {known})")


def as_tower(model: nn.Module, name: str, *, depth: int | None = None) -> Tower:
    """See a timm model that is already there as a tower.

    Args:
        model: The model; the tower takes it over, its blocks move out of it.
        name: What to call it.
        depth: Keep only the first blocks, as for ``create_tower``.

    Returns:
        The tower, frozen and in evaluation mode.

    Raises:
        BackboneError: Its architecture cannot be seen as sequential branches.
    """
    return view_of(model, name)(model, name=name, depth=depth)  # type: ignore[call-arg]


def view_of(model: nn.Module, name: str) -> type[Tower]:
    """The tower class that fits a timm model.

    Args:
        model: The model; the meta device will do.
        name: Its name, for the message.

    Returns:
        The class.

    Raises:
        BackboneError: There is none.
    """
    kind = type(model)
    for family, view in VIEWS.items():
        # A subclass that walks its blocks in another way must not pass for its parent.
        if not isinstance(model, family) or kind.forward_features is not family.forward_features:  # type: ignore[attr-defined]
            continue
        blocks: Any = getattr(model, "blocks", ())
        if all(type(block) in SEQUENTIAL_BLOCKS for block in blocks):
            return view
        raise BackboneError(
            f"{name} is built of {type(blocks[0]).__name__}, whose branches run side by side: no fusion fits "
            f"between attention and MLP; choose a backbone with sequential blocks: {FAMILIES}"
        )
    raise BackboneError(
        f"{name} is a {kind.__name__}, which avtune cannot see as blocks; supported are {FAMILIES}"
    )


@cache
def unused_head_parameters(name: str) -> int:
    """Size of the class head that the pretrained backbone carries and a tower leaves away.

    Papers count it into their totals: 16.80 M (768 x 21843 + 21843) for the ViT-B/16 of ImageNet-21k.

    Args:
        name: As for ``create_tower``.

    Returns:
        Parameters of timm's classifier for that name; 0 for ``nano`` and for backbones without one. For an
        AST trained on AudioSet its own head; for ``htsat`` also the Fourier and mel filters that its authors
        keep as weights.

    Raises:
        BackboneError: No such name.
    """
    if name == "nano":
        return 0
    if name == "htsat":
        return htsat.left_out_parameters()
    if name in ast.AST_VARIANTS:
        variant = ast.AST_VARIANTS[name]
        return ast.head_parameters() if variant.audioset else unused_head_parameters(variant.body)
    heads = _build(at_hand(name), device="meta").get_classifier()
    heads = heads if isinstance(heads, tuple) else (heads,)
    return sum(parameter.numel() for head in heads for parameter in head.parameters())


def _build(name: str, **arguments: Any) -> Any:
    """``timm.create_model`` with its errors in one line."""
    _check_name(name)
    try:
        return timm.create_model(name, **arguments)
    except Exception as error:
        if concerns_network(error):
            raise not_fetched(name, in_one_line(error)) from error
        if isinstance(error, (RuntimeError, TypeError, AssertionError, ValueError, OSError)):
            known = tags_of(name, "; pretrained weights exist as ")
            raise BackboneError(f"timm cannot build {name}: {in_one_line(error)}{known}") from error
        raise


def _check_name(name: str) -> None:
    if ":" in name or timm.is_model(name):
        return
    known = [*OWN_NAMES, *timm.list_models(), *timm.list_pretrained()]
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"the nearest are {', '.join(nearest)}" if nearest else "avtune list towers shows what there is"
    raise BackboneError(f"there is no backbone named {name}; {hint}")
