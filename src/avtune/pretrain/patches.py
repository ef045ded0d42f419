"""Pictures as patches: cutting, embedding those that are kept, positions, and what a decoder shall predict."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Layout, Norm, Packed, send

TARGET_EPSILON = 1e-6
"""Added to a patch's variance before it is normalised, as MAE does."""


def cut(pictures: Tensor, patch: int) -> Tensor:
    """A view of pictures as patches; edges that fill no whole patch are left away.

    Args:
        pictures: (clips, channels, height, width).
        patch: Side of a patch, pixels.

    Returns:
        (clips, rows, columns, channels, patch, patch); nothing is copied.
    """
    cells = pictures.unfold(2, patch, patch).unfold(3, patch, patch)
    return cells.permute(0, 2, 3, 1, 4, 5)


def targets(pictures: Tensor, patch: int, clip: Tensor, position: Tensor, *, normalized: bool) -> Tensor:
    """Pixels of some patches, as a masked autoencoder predicts them.

    Args:
        pictures: (clips, channels, height, width).
        patch: Side of a patch.
        clip: Which picture, (n,) int64.
        position: Which of its patches, row by row, (n,) int64.
        normalized: Each patch to mean 0 and (unbiased) variance 1, as MAE's ``norm_pix_loss``.

    Returns:
        (n, patch * patch * channels) in the order row, column, channel, single precision.
    """
    cells = cut(pictures, patch)
    columns = cells.shape[2]
    chosen = cells[clip, position // columns, position % columns]
    values = chosen.permute(0, 2, 3, 1).flatten(1).float()
    if normalized:
        variance, mean = torch.var_mean(values, dim=1, keepdim=True)
        values = (values - mean) / (variance + TARGET_EPSILON).sqrt()
    return values


class Stem(nn.Module):
    """One modality's patch embedding and positions, for kept patches only.

    Args:
        kernel: Patch convolution's weight (dim, channels, patch, patch), which it begins as a copy of.
        bias: Its bias (dim,).
        positions: Position table (patches, dim), in the order of the patches.
        size: Height and width of the pictures.
        norm: Name of this modality's norms.
        before: Module between embedding and first block, the backbone's ``norm_pre``.
        doubled: Add that module's result to its input, x + norm_pre(x), as AVSiam's released code: where the
            module does nothing, every embedding counts twice.
        modality: Add a vector to all tokens, as CAV-MAE.
        fixed_positions: Leave the table as it is in training.

    Raises:
        AvtuneError: The table does not fit the pictures.
    """

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor,
        positions: Tensor,
        size: tuple[int, int],
        norm: Norm,
        *,
        before: nn.Module | None = None,
        doubled: bool = False,
        modality: bool = False,
        fixed_positions: bool = False,
    ) -> None:
        super().__init__()
        self.patch = kernel.shape[-1]
        self.size, self.norm, self.doubled = size, norm, doubled
        self.grid = (size[0] // self.patch, size[1] // self.patch)
        self.length = self.grid[0] * self.grid[1]
        if len(positions) != self.length:
            raise AvtuneError(
                f"pictures of {size[0]}x{size[1]} have {self.length} patches, the position table {len(positions)}; "
                "give a table or pictures of the other's size"
            )
        self.weight = nn.Parameter(kernel.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self.positions = nn.Parameter(positions.detach().clone(), requires_grad=not fixed_positions)
        self.before = nn.Identity() if before is None else before
        self.modality = nn.Parameter(torch.empty_like(bias).normal_(std=0.02)) if modality else None

    @property
    def channels(self) -> int:
        """Channels of its pictures."""
        return self.weight.shape[1]

    def forward(self, pictures: Tensor, kept: Kept) -> Packed:
        """Embed the kept patches.

        Args:
            pictures: (clips, channels, height, width).
            kept: Which of their patches.

        Returns:
            Their tokens, packed in the order of ``kept``.

        Raises:
            AvtuneError: The pictures are of another size.
        """
        if tuple(pictures.shape[1:]) != (self.channels, *self.size):
            raise AvtuneError(
                f"pictures are {tuple(pictures.shape[1:])}, and this model takes {(self.channels, *self.size)}: "
                "prepare them with its preset, or create the model for their size"
            )
        clip, position = (send(x, pictures.device) for x in (kept.clip, kept.position))
        columns = self.grid[1]
        cells = cut(pictures, self.patch)[clip, position // columns, position % columns]
        x = F.linear(cells.flatten(1), self.weight.flatten(1), self.bias)
        # Unlike indexing, an embedding adds up the gradients of a row in one order by itself, and on several threads.
        x = x + F.embedding(position, self.positions)
        if self.modality is not None:
            x = x + self.modality
        x = x + self.before(x) if self.doubled else self.before(x)
        return Packed(x, Layout(kept.counts, ((self.norm, len(kept)),)))


def stretched(positions: Tensor, length: int) -> Tensor:
    """A position table drawn out along its raster order, each row repeated: row floor(i rows / length) for place i.

    What AVSiam begins the sound's positions with; neighbours in the spectrogram's grid are not kept together.

    Args:
        positions: (rows, dim).
        length: Rows wanted.
    """
    rows = torch.arange(length, device=positions.device) * len(positions) // length
    return positions[rows]


def resampled(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """A position table fitted to another grid, bilinearly in two dimensions.

    Args:
        positions: (rows * columns, dim), row by row.
        grid: Rows and columns of the table.
        wanted: Rows and columns of the result.
    """
    picture = positions.reshape(*grid, -1).permute(2, 0, 1)[None]
    fitted = F.interpolate(picture, size=wanted, mode="bilinear", align_corners=False)[0]
    return fitted.permute(1, 2, 0).flatten(0, 1)


def sinusoids(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed two-dimensional positions of MAE: half of the channels tell the column, half the row.

    Args:
        grid: Rows and columns.
        dim: Channels, a multiple of 4.

    Returns:
        (rows * columns, dim), row by row; the first half of the channels tells the column.
    """
    rates = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = (torch.arange(size, dtype=torch.float64)[:, None] * rates for size in grid)
    row, column = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (rows, columns))
    table = torch.cat([column[None].expand(grid[0], -1, -1), row[:, None].expand(-1, grid[1], -1)], dim=2)
    return table.flatten(0, 1).float()
