"""Views of timm's Swin transformers: windows of attention, shifted from block to block, in stages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones.tower import BackboneError, FrozenBlock, Positions, Resampling, Tower


class SwinBlock(FrozenBlock):
    """A Swin block; tokens stay flat outside, the grid is known from the tower's image size.

    Attributes:
        grid: Rows and columns of this block's tokens.
        window: Rows and columns of a window.
        shift: Rows and columns of the cyclic shift before windows are cut.
    """

    def __init__(
        self, block: Any, merge: nn.Module | None = None, merge_grid: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(block, dim=block.dim, heads=block.attn.num_heads, norm_after=False)
        self.grid: tuple[int, int] = tuple(block.input_resolution)
        self.window: tuple[int, int] = tuple(block.window_size)
        self.shift: tuple[int, int] = tuple(block.shift_size)
        self.shifted = any(self.shift)
        self.merge = merge
        self.merge_grid = merge_grid
        self.enters_stage = merge is not None

    def enter(self, x: Tensor) -> Tensor:
        """Merge patches two by two before a stage's first block; see :meth:`FrozenBlock.enter`."""
        if self.merge is None:
            return x
        merged: Tensor = self.merge(x.reshape(len(x), *self.merge_grid, -1))
        return merged.flatten(1, 2)

    def group(self, x: Tensor) -> Tensor:
        """See :meth:`FrozenBlock.group`."""
        batch, _, dim = x.shape
        (rows, columns), (high, wide) = self.grid, self.window
        cells = x.reshape(batch, rows, columns, dim)
        if self.shifted:
            cells = torch.roll(cells, (-self.shift[0], -self.shift[1]), dims=(1, 2))
        below, beside = -rows % high, -columns % wide
        if below or beside:
            cells = nn.functional.pad(cells, (0, 0, 0, beside, 0, below))
        down, across = (rows + below) // high, (columns + beside) // wide
        cells = cells.reshape(batch, down, high, across, wide, dim)
        return cells.transpose(2, 3).reshape(-1, high * wide, dim)

    def ungroup(self, x: Tensor) -> Tensor:
        """See :meth:`FrozenBlock.ungroup`."""
        (rows, columns), (high, wide) = self.grid, self.window
        down, across, dim = -(-rows // high), -(-columns // wide), x.shape[-1]
        cells = x.reshape(-1, down, across, high, wide, dim).transpose(2, 3)
        cells = cells.reshape(-1, down * high, across * wide, dim)[:, :rows, :columns]
        if self.shifted:
            cells = torch.roll(cells, self.shift, dims=(1, 2))
        return cells.reshape(-1, rows * columns, dim)

    def _attention(self, x: Tensor, positions: Positions, extra: Tensor | None) -> Tensor:
        windows = self.group(x)
        if extra is None:
            return self.ungroup(self.block.attn(windows, mask=self.block.attn_mask))
        return self.ungroup(self._attend_with_extra(windows, extra))

    def _attend_with_extra(self, windows: Tensor, extra: Tensor) -> Tensor:
        """Window attention in which the extra tokens of a sample are keys and values in each of its windows.

        Nothing but the tokens of the windows asks, and no matrix of scores is kept for the backward pass.

        Args:
            windows: Tokens (batch * windows, window length, dim), windows of one sample side by side.
            extra: Tokens (batch, n, dim).

        Returns:
            (batch * windows, window length, dim), the output projection applied.
        """
        query, key, value = self._project(windows)
        extra_key, extra_value = self._project_keys_and_values(extra)
        query, key = self._comparable(query), self._comparable(key, is_key=True)
        extra_key = self._comparable(extra_key, is_key=True)
        bias = self._window_bias()
        # Where windows differ in their mask they stand beside the heads, so that one mask serves every sample.
        fold = (0, 1) if len(bias) == 1 else (1, 2)

        def by_sample(x: Tensor) -> Tensor:
            return x.reshape(len(extra), -1, *x.shape[1:])

        def in_every_window(own: Tensor, others: Tensor) -> Tensor:
            own = by_sample(own)
            others = others.unsqueeze(1).expand(-1, own.shape[1], -1, -1, -1)
            return torch.cat([own, others], dim=3).flatten(*fold)

        query = by_sample(query)
        samples, count = query.shape[:2]
        mixed = nn.functional.scaled_dot_product_attention(
            query.flatten(*fold),
            in_every_window(key, extra_key),
            in_every_window(value, extra_value),
            attn_mask=nn.functional.pad(bias, (0, extra.shape[1])).flatten(0, 1).unsqueeze(0).to(value.dtype),
            scale=1.0,
        )
        mixed = mixed.reshape(samples * count, self.heads, *mixed.shape[2:])
        attended: Tensor = self.block.attn.proj(mixed.transpose(1, 2).flatten(2))
        return attended

    def _window_bias(self) -> Tensor:
        """What is added to the scores: (1 or windows of a sample, heads, window length, window length)."""
        bias, mask = self._position_bias(), self.block.attn_mask
        return bias if mask is None else bias + mask.unsqueeze(1)

    def _position_bias(self) -> Tensor:
        """The relative position table, (1, heads, window length, window length)."""
        bias: Tensor = self.block.attn._get_rel_pos_bias()
        return bias

    def _comparable(self, x: Tensor, *, is_key: bool = False) -> Tensor:
        """Queries or keys such that their plain products are the scores."""
        scaled: Tensor = x if is_key else x * self.block.attn.scale
        return scaled

    def _heads_apart(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, length, 3 * dim) to queries, keys and values, each (batch, heads, length, head dim)."""
        parts = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads_apart(self.block.attn.qkv(x))

    def _projection_bias(self) -> Tensor | None:
        """The bias of queries, keys and values, (3 * dim,)."""
        bias: Tensor | None = self.block.attn.qkv.bias
        return bias

    def _project_keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (batch, heads, length, head dim)."""
        projection = self.block.attn.qkv
        if type(projection) is not nn.Linear:
            # Something is wrapped around it, such as a low-rank update, that must act on all of its rows.
            return self._project(x)[1:]
        third = projection.out_features // 3
        bias = self._projection_bias()
        both = nn.functional.linear(x, projection.weight[third:], None if bias is None else bias[third:])
        key, value = both.reshape(*x.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return key, value

    def _attention_along(self, x: Tensor, bias: Tensor | None) -> Tensor:
        attend = nn.functional.scaled_dot_product_attention
        mixed = attend(*self._project(x), attn_mask=bias, scale=self.block.attn.scale)
        along: Tensor = self.block.attn.proj(mixed.transpose(1, 2).flatten(2))
        return along


class SwinTower(Tower):
    """A ``SwinTransformer`` of timm (Swin V1, S3)."""

    block_view: type[SwinBlock] = SwinBlock

    def __init__(self, model: Any, *, name: str, depth: int | None = None) -> None:
        blocks: list[FrozenBlock] = []
        stages: list[range] = []
        for stage in model.layers:
            first = len(blocks)
            for block in stage.blocks[:depth]:
                merges = len(blocks) == first and not isinstance(stage.downsample, nn.Identity)
                merge = (stage.downsample, tuple(stage.input_resolution)) if merges else ()
                blocks.append(self.block_view(block, *merge))
            stages.append(range(first, len(blocks)))
        super().__init__(model, blocks, stages, name=name)
        model.layers = nn.Sequential()

    @classmethod
    def reduced(cls, model: Any, depth: int) -> dict[str, Any]:
        """See :meth:`Tower.reduced`."""
        return {"depths": tuple(min(depth, len(stage.blocks)) for stage in model.layers)}

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """See :meth:`Tower.place`; images must have the tower's own size, nothing is resampled."""
        self._require_own_size(*images.shape[-2:])
        tokens: Tensor = self.model.patch_embed(images).flatten(1, 2)
        return tokens, None

    def lengths(self, height: int, width: int) -> tuple[int, ...]:
        """See :meth:`Tower.lengths`."""
        self._require_own_size(height, width)
        grids = [block.grid for block in self.blocks if isinstance(block, SwinBlock)]
        return tuple(rows * columns for rows, columns in grids)

    def _require_own_size(self, height: int, width: int) -> None:
        if (height, width) != (self.image_size, self.image_size):
            raise BackboneError(
                f"{self.name} has fixed windows: it takes {self.image_size}x{self.image_size} images only, "
                f"not {height}x{width}; resize them or create the tower with image_size={max(height, width)}"
            )

    def begin(self, tokens: Tensor) -> Tensor:
        """See :meth:`Tower.begin`; Swin's first norm is part of its patch embedding."""
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        """See :meth:`Tower.pool`."""
        last: Any = self.blocks[-1]
        return super().pool(tokens.reshape(len(tokens), *last.grid, -1))
