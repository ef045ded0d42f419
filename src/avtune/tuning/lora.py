"""LoRA: trained low-rank updates of the frozen projections (Hu et al., ICLR 2022), through the library peft.

Each stream gets a second tree of modules over the same frozen weights (:func:`avtune.tuning.tied.tied_copy`), and peft
wraps the projections of that tree. So the towers stay as they are, two streams over one tower have two updates without
any switch that says whose turn it is, and recomputing or compiling a step needs no special care.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.backbones.tower import Positions
from avtune.options import OptionError
from avtune.tuning.base import BlockTuning, Hear, Tuning, TuningError, by_stream
from avtune.tuning.tied import tied_copy


@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA: ``W'x = W x + (alpha / r) B A x`` with A (r, in) and B (out, r), B zero at the start.

    Attributes:
        rank: r. timm keeps queries, keys and values in one projection: r is then the rank of all three together.
        alpha: Factor alpha.
        dropout: Share of the input of A that is dropped in training.
        targets: Projections that are updated, as timm calls them within a block: ``qkv`` (or ``q_proj``, ``k_proj``,
            ``v_proj``) and ``proj`` of the attention, ``fc1`` and ``fc2`` of the MLP.
        rank_stabilised: Divide by the root of r instead of r.
        shared: Both streams, over one tower, train the same updates.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("qkv", "proj")
    rank_stabilised: bool = False
    shared: bool = False


PRESETS = {
    "attention": LoraConfig(),
    "all": LoraConfig(targets=("qkv", "proj", "fc1", "fc2")),
}


class JoinedBias(nn.Linear):
    """Projection to queries, keys and values whose bias is kept in three parts.

    timm's Swin-V2 and EVA keep it so, and compute ``F.linear(x, qkv.weight, bias)``: a wrapper around ``qkv`` is then
    passed by, trains nothing, and says nothing. Here the sum of product and bias is the projection's own again, in
    the same single operation, so that its values stay bit for bit timm's. (timm's ``qkv_bias_separate`` would call
    the wrapper too, but adds the bias in a second operation, which rounds differently at some widths.)

    Args:
        projection: timm's projection, without bias.
        parts: Biases of queries, keys and values.
    """

    def __init__(self, projection: nn.Linear, parts: tuple[Tensor, Tensor, Tensor]) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = projection.in_features, projection.out_features
        self.weight = projection.weight
        self.register_parameter("bias", None)
        for name, part in zip(("q_bias", "k_bias", "v_bias"), parts, strict=True):
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., dim) to (..., 3 * dim)."""
        parts: list[Any] = [self.q_bias, self.k_bias, self.v_bias]
        return F.linear(x, self.weight, torch.cat(parts))


class LoraBlock(BlockTuning):
    """A stream's own tree of a frozen block, with updates at its projections.

    Args:
        block: The frozen block; it stays as it is.
        config: Settings.

    Raises:
        OptionError: If the block has no projection of a name in ``targets``.
        TuningError: If peft is not there.
    """

    def __init__(self, block: FrozenBlock, config: LoraConfig) -> None:
        super().__init__()
        peft = _peft()
        self.block = tied_copy(block)
        if "qkv" in config.targets:
            _join_bias(self.block.block.attn)
        settings = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_rslora=config.rank_stabilised,
            target_modules="|".join(map(re.escape, _names(self.block, config.targets))),
        )
        freed = [weight for weight in block.parameters() if weight.requires_grad]
        peft.inject_adapter_in_model(settings, self.block)
        for weight in freed:
            # peft freezes all but its own, and these tensors are the tower's.
            weight.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch the updates' dropout; the frozen block stays in evaluation mode, as in its tower."""
        super().train(mode)
        self.block.eval()
        for name, part in self.block.named_modules():
            if name.endswith("lora_dropout"):
                part.train(mode)
        return self

    def attend(
        self, block: FrozenBlock, x: Tensor, positions: Positions, extra: Tensor | None, hear: Hear
    ) -> Tensor:
        """See :meth:`BlockTuning.attend`."""
        return super().attend(self.block, x, positions, extra, hear)

    def feed(self, block: FrozenBlock, x: Tensor, hear: Hear) -> Tensor:
        """See :meth:`BlockTuning.feed`."""
        return super().feed(self.block, x, hear)

    def attend_along(self, block: FrozenBlock, x: Tensor, bias: Tensor | None) -> Tensor:
        """See :meth:`BlockTuning.attend_along`: the same updated projections, along another axis."""
        return super().attend_along(self.block, x, bias)


def build_lora(audio_tower: Tower, video_tower: Tower, config: LoraConfig) -> Tuning:
    """Updates for each block of each stream.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames; may be the same.
        config: Settings.

    Raises:
        OptionError: If a block has no projection of a name in ``targets``.
        TuningError: If peft is not there, or streams of two towers are to share their updates.
    """
    return Tuning(by_stream(audio_tower, video_tower, config.shared, lambda block: LoraBlock(block, config)))


def _peft() -> Any:
    try:
        import peft
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise TuningError(
            f"LoRA needs peft, which cannot be imported ({reason}); pip install 'avtune[lora]', and take torchaudio "
            "out where peft stumbles over it"
        ) from error
    return peft


def _join_bias(attention: Any) -> None:
    parts = tuple(getattr(attention, f"{name}_bias", None) for name in "qkv")
    if isinstance(getattr(attention, "qkv", None), nn.Linear) and all(part is not None for part in parts):
        attention.qkv = JoinedBias(attention.qkv, parts)  # type: ignore[arg-type]
        attention.q_bias = attention.k_bias = attention.v_bias = None


def _names(block: FrozenBlock, targets: tuple[str, ...]) -> list[str]:
    """Full names, within the view, of the projections that are asked for."""
    linear = {
        name: name.rpartition(".")[2]
        for name, part in block.named_modules()
        if isinstance(part, nn.Linear) and re.fullmatch(r"block\.(attn|mlp)\.\w+", name)
    }
    missing = [target for target in targets if target not in linear.values()]
    if missing or not targets:
        wrong = f"has no projection {missing[0]!r}" if missing else "needs one target at least"
        raise OptionError(
            f"lora option 'targets': a block of this tower {wrong}; choose among "
            f"{', '.join(dict.fromkeys(linear.values()))}"
        )
    return [name for name, short in linear.items() if short in targets]
