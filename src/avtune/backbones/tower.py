"""A pretrained image transformer, seen as a sequence of blocks whose two residual branches stand open.

Whoever fuses two streams needs to act between the layers of frozen backbones. Rather than patching the
backbones from outside, avtune exposes each block's branches without the residual add, and the caller owns
the walk: ``x = x + block.attend(x, positions)``, ``x = x + block.feed(x)``, with whatever belongs in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias

from torch import Tensor, nn

from avtune.errors import AvtuneError

Positions: TypeAlias = Tensor | None
"""What a tower's blocks must know of the token grid: the table of a rotary embedding, otherwise ``None``.

``Tower.embed`` computes it from the images and the caller hands it to every block, so that two streams of
different sizes can walk through one shared tower at the same time.
"""

Resampling: TypeAlias = Literal["grid", "sequence"]
"""How a position embedding is fitted to images of another size than the tower was trained on.

``grid``: in two dimensions, bicubic, class and register tokens left alone. ``sequence``: the whole table,
class token included, linearly along its length, as the LAVISH authors' code does for spectrograms.
"""


class BackboneError(AvtuneError):
    """A backbone cannot be built, loaded, or used in the way that was asked for."""


class FrozenBlock(nn.Module, ABC):
    """A block of a backbone as its two residual branches over flat tokens (batch, length, dim).

    It holds the backbone's own block, not a copy of its weights. Where the backbone adds branches to a
    stream, ``x + branch(x)``, this class returns the branch alone: with its norm (before or after, as the
    architecture has it) and its layer scale, without the residual add. Stochastic depth never acts, because
    a frozen tower stays in evaluation mode.

    Attributes:
        block: The backbone's block.
        dim: Width of the tokens that ``attend`` and ``feed`` take and return.
        heads: Attention heads.
        enters_stage: Whether ``enter`` changes length and width (patch merging before a stage's first block).
        norm_after: Whether the branches are normalised at their end (residual post-norm), not their start.
        shifted: Whether ``group`` shifts the grid cyclically before it cuts windows (every other Swin block).
    """

    block: Any
    enters_stage: bool = False
    shifted: bool = False

    def __init__(self, block: nn.Module, *, dim: int, heads: int, norm_after: bool = False) -> None:
        super().__init__()
        self.block = block
        self.dim = dim
        self.heads = heads
        self.norm_after = norm_after

    @abstractmethod
    def _attention(self, x: Tensor, positions: Positions, extra: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _attention_along(self, x: Tensor, bias: Tensor | None) -> Tensor: ...

    def _scale_attention(self, x: Tensor) -> Tensor:
        return x

    def _scale_feed(self, x: Tensor) -> Tensor:
        return x

    def _before(self, x: Tensor) -> Tensor:
        return x if self.norm_after else self.block.norm1(x)

    def _after(self, x: Tensor) -> Tensor:
        return self.block.norm1(x) if self.norm_after else self._scale_attention(x)

    def enter(self, x: Tensor) -> Tensor:
        """Bring the previous block's tokens to this block's grid.

        Args:
            x: Tokens (batch, previous length, previous dim).

        Returns:
            Tokens (batch, length, dim): patches merged two by two where ``enters_stage``, otherwise ``x``.
        """
        return x

    def attend(self, x: Tensor, positions: Positions = None, *, extra: Tensor | None = None) -> Tensor:
        """The attention branch: norm, attention, output projection, layer scale; no residual add.

        Args:
            x: Tokens (batch, length, dim). Tokens beyond those that ``Tower.embed`` made (appended prompts)
                take part in full; a rotary embedding leaves them unrotated.
            positions: What ``Tower.embed`` returned for this stream.
            extra: Tokens (batch, n, dim) that serve as keys and values only. The branch's norm applies to
                them as to ``x``. The result is that of appending them to ``x`` and dropping their outputs,
                without the cost of their queries. Where attention stays within windows, each window sees
                them, without a position and unmasked.

        Returns:
            The branch (batch, length, dim).
        """
        normed_extra = None if extra is None else self._before(extra)
        return self._after(self._attention(self._before(x), positions, normed_extra))

    def feed(self, x: Tensor) -> Tensor:
        """The MLP branch: norm, MLP, layer scale; no residual add.

        Args:
            x: Tokens (batch, length, dim).

        Returns:
            The branch (batch, length, dim).
        """
        if self.norm_after:
            branch: Tensor = self.block.norm2(self.block.mlp(x))
            return branch
        return self._scale_feed(self.block.mlp(self.block.norm2(x)))

    def plain(self, x: Tensor, positions: Positions = None) -> Tensor:
        """The block as the backbone itself runs it, ``enter`` not included.

        Args:
            x: Tokens (batch, length, dim).
            positions: What ``Tower.embed`` returned for this stream.

        Returns:
            ``x + attend(x)``, and to that its own ``feed`` added; (batch, length, dim).
        """
        x = x + self.attend(x, positions)
        return x + self.feed(x)

    def attend_along(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The frozen attention branch along another axis, such as time.

        The same norm, query, key, value and output projections as ``attend``, as plain multi-head attention
        over the given sequence: no windows, no rotary embedding, no relative position table.

        Args:
            x: Tokens (batch, length, dim), the axis to attend along in the middle; any batch, any length.
            bias: Added to the attention logits, (heads, length, length) or broadcastable to
                (batch, heads, length, length).

        Returns:
            The branch (batch, length, dim).
        """
        return self._after(self._attention_along(self._before(x), bias))

    def group(self, x: Tensor) -> Tensor:
        """Arrange tokens by the windows in which this block attends, after its cyclic shift.

        Args:
            x: Tokens (batch, length, dim).

        Returns:
            (batch * windows, window length, dim), windows of one sample side by side; ``x`` itself where
            attention is global. Cells that pad the grid to whole windows are zero.
        """
        return x

    def ungroup(self, x: Tensor) -> Tensor:
        """Undo ``group``.

        Args:
            x: (batch * windows, window length, dim).

        Returns:
            Tokens (batch, length, dim); ``ungroup(group(x))`` equals ``x``.
        """
        return x


class Tower(nn.Module, ABC):
    """A frozen backbone: images to tokens, a sequence of blocks, a final norm.

    The walk ``embed``, then for each block ``enter`` and ``plain``, then ``finish`` gives bit for bit what
    timm's ``forward_features`` gives. The tower takes the timm model over: its blocks move to ``blocks``.

    Every parameter is frozen and the modules stay in evaluation mode, whatever ``train`` is told: no
    stochastic depth, no dropout, no running statistics.

    Attributes:
        name: Name under which ``create_tower`` builds it.
        model: The timm model without its blocks and without its class head.
        blocks: The blocks, in order.
        stages: Ranges of block indices with one width and one grid; one stage for a plain ViT.
        dims: Width of each block's tokens.
        dim: Width of the last block's tokens.
        picture_size: Rows and columns of the pictures it was trained on, pixels: a square of an image, rows
            and columns of a spectrogram for a tower of sound.
        image_size: The longer of the two: the side of square images.
        patch_size: Side of a patch, pixels (of the first grid).
        mean: Mean per channel of RGB in [0, 1] to subtract.
        std: Standard deviation per channel to divide by.
        prefix_tokens: Class and register tokens that stand before the patches.
        channels: Channels of the pictures it takes: 3 for RGB, 1 for a tower made for spectrograms.
        audio_preset: Name in ``avtune.transforms.AUDIO_PRESETS`` of the front end that it hears a segment's
            second through; None for a tower of images.
    """

    audio_preset: str | None = None
    model: Any
    blocks: Sequence[FrozenBlock]

    def __init__(
        self, model: nn.Module, blocks: Sequence[FrozenBlock], stages: Sequence[range], *, name: str
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.stages = tuple(stages)
        self.dims = tuple(block.dim for block in blocks)
        self.dim = self.dims[-1]
        settings: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
        red, green, blue = settings.get("mean", (0.5, 0.5, 0.5))
        self.mean: tuple[float, float, float] = (red, green, blue)
        red, green, blue = settings.get("std", (0.5, 0.5, 0.5))
        self.std: tuple[float, float, float] = (red, green, blue)
        self.picture_size = self._trained_size()
        self.image_size = max(self.picture_size)
        self.patch_size: int = self.model.patch_embed.feat_ratio()
        self.prefix_tokens: int = getattr(model, "num_prefix_tokens", 0)
        self.channels = _picture_channels(self.model)
        self.requires_grad_(False)
        self.eval()

    def _trained_size(self) -> tuple[int, int]:
        side = square_side(self.model, self.name)
        return side, side

    @classmethod
    @abstractmethod
    def reduced(cls, model: Any, depth: int) -> dict[str, Any]:
        """The arguments with which timm builds the same architecture with fewer blocks.

        Args:
            model: The whole model (the meta device will do).
            depth: Blocks to keep; where there are stages, at most this many of each.

        Returns:
            Keyword arguments of ``timm.create_model``.
        """

    @abstractmethod
    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """Cut images into patches and add prefix tokens and learned positions; :meth:`begin` comes next.

        Args:
            images: (batch, ``channels``, height, width), normalised by ``mean`` and ``std``.
            resampling: How a learned position embedding is fitted to another size.

        Returns:
            Tokens (batch, length, dim of the first block) and what the blocks must know of their grid.

        Raises:
            BackboneError: This backbone cannot take images of that size.
        """

    def begin(self, tokens: Tensor) -> Tensor:
        """The norm between embedding and first block, where the backbone has one (CLIP, DINOv3).

        Args:
            tokens: What ``place`` returned, perhaps with something added, (batch, length, dim).

        Returns:
            (batch, length, dim).
        """
        begun: Tensor = self.model.norm_pre(tokens)
        return begun

    def embed(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """``place`` and ``begin``: all that the backbone does before its first block.

        Args:
            images: As for :meth:`place`.
            resampling: As for :meth:`place`.

        Returns:
            Tokens (batch, length, dim of the first block) and what the blocks must know of their grid.

        Raises:
            BackboneError: This backbone cannot take images of that size.
        """
        tokens, positions = self.place(images, resampling=resampling)
        return self.begin(tokens), positions

    @abstractmethod
    def lengths(self, height: int, width: int) -> tuple[int, ...]:
        """How many tokens each block sees of a picture.

        Args:
            height: Height of the picture, pixels.
            width: Width of the picture, pixels.

        Returns:
            One number per block: prefix tokens and patches, after the merging that the block begins with.

        Raises:
            BackboneError: This backbone cannot take pictures of that size.
        """

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: frozen means frozen.

        Args:
            mode: Ignored.

        Returns:
            The tower.
        """
        return super().train(False)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that ``embed`` cuts an image into.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.

        Returns:
            (rows, columns); what is left beyond a whole multiple of the patch is dropped.
        """
        return height // self.patch_size, width // self.patch_size

    def finish(self, tokens: Tensor) -> Tensor:
        """The final norm (identity where the backbone normalises after pooling instead).

        Args:
            tokens: (batch, length, dim).

        Returns:
            (batch, length, dim).
        """
        finished: Tensor = self.model.norm(tokens)
        return finished

    def pool(self, tokens: Tensor) -> Tensor:
        """One vector per image, as timm would hand it to the class head.

        Args:
            tokens: What ``finish`` returned, (batch, length, dim).

        Returns:
            (batch, dim): class token, mean over patches or attention pooling, as the backbone was trained,
            with the norm that follows pooling where there is one.
        """
        pooled: Tensor = self.model.forward_head(tokens, pre_logits=True)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """The plain frozen backbone.

        Args:
            images: (batch, ``channels``, height, width), normalised by ``mean`` and ``std``.

        Returns:
            Finished tokens (batch, length, dim).
        """
        tokens, positions = self.embed(images)
        for block in self.blocks:
            tokens = block.plain(block.enter(tokens), positions)
        return self.finish(tokens)


def _picture_channels(model: Any) -> int:
    """Channels that a timm model's first convolution reads; 3 where patches are not cut by a convolution."""
    first = next(model.patch_embed.parameters())
    return int(first.shape[1]) if first.ndim == 4 else 3


def square_side(model: Any, name: str) -> int:
    """Side of the square images that a timm model was built for.

    Args:
        model: A timm model with a ``patch_embed``.
        name: Its name, for the message.

    Returns:
        The side in pixels.

    Raises:
        BackboneError: The model was built for a rectangle.
    """
    height, width = model.patch_embed.img_size
    if height != width:
        raise BackboneError(
            f"{name} is made for images of {height}x{width}, avtune's towers are square; "
            f"choose a side with image_size={min(height, width)}"
        )
    return int(height)
