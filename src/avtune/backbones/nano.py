"""The bundled backbone: a tiny vision transformer pretrained on procedurally generated images only.

It ships inside the package so that ``avtune try`` and the tests run on real, pretrained weights without a
download. How it was trained, on what, and how it compares with random weights: ``docs/nano.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from avtune.backbones.timm_loading import timm
from avtune.errors import AvtuneError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

NANO_MEAN = (0.5, 0.5, 0.5)
NANO_STD = (0.5, 0.5, 0.5)
NANO_IMAGE_SIZE = 64
NANO_WEIGHTS = "weights/nano.safetensors"
STREAM_WRITERS = ("patch_embed.proj.", "pos_embed", ".attn.proj.", ".mlp.fc2.")


def create_nano(pretrained: bool = True, seed: int | None = None) -> VisionTransformer:
    """Build the nano vision transformer: 64x64 images, 8x8 patches, width 128, 6 blocks, no class token.

    ``forward_features`` maps images (batch, 3, 64, 64), normalised by `NANO_MEAN` and `NANO_STD`, to the
    final normalised tokens (batch, 64, 128), and ``forward`` to their mean (batch, 128).

    Args:
        pretrained: Load the packaged weights (stored in half precision, returned in float32).
        seed: Seed of the random initialisation, which then leaves torch's global generator as it was; with
            None it draws from that generator. Without effect on pretrained weights.

    Returns:
        The model in training mode, all parameters float32 on the CPU and requiring gradients.

    Raises:
        AvtuneError: The packaged weights are missing, unreadable, or of another architecture.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model: VisionTransformer = timm.models.vision_transformer.VisionTransformer(
            img_size=NANO_IMAGE_SIZE,
            patch_size=8,
            in_chans=3,
            num_classes=0,
            global_pool="avg",
            # timm would otherwise move the final norm behind the pooling and leave the tokens unnormalised.
            fc_norm=False,
            class_token=False,
            embed_dim=128,
            depth=6,
            num_heads=4,
            mlp_ratio=4,
        )
    if pretrained:
        _load_packaged_weights(model)
    return model


@torch.no_grad()
def scale_stream(weights: Mapping[str, Tensor], factor: float) -> None:
    """Multiply nano's residual stream at every depth, in place, without changing what the network computes.

    Every reader of the stream is a layer norm, so scaling all its writers (patch and position embedding, output
    projections) leaves the features as they were. What others add to the stream then acts as strongly as wished.

    Args:
        weights: Weights by name, of the model or of its tower.
        factor: What the stream is multiplied by.
    """
    for name, value in weights.items():
        if any(writer in name for writer in STREAM_WRITERS):
            value *= factor


def _load_packaged_weights(model: VisionTransformer) -> None:
    try:
        stored = (resources.files("avtune.backbones") / NANO_WEIGHTS).read_bytes()
    except FileNotFoundError:
        raise AvtuneError(
            "the nano backbone's packaged weights are missing; "
            "reinstall avtune, or run tools/nano/pretrain.py to make them, or use pretrained=False"
        ) from None
    try:
        model.load_state_dict({name: value.float() for name, value in load_safetensors(stored).items()})
    except (SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise AvtuneError(
            f"the nano backbone's packaged weights are damaged ({problem}); reinstall avtune"
        ) from error
