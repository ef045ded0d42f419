"""Contrast between the streams' features over the segments of all processes: Equations 4 to 6 of MA-AVT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

Feature = Literal[
    "shared_tokens",
    "class_tokens",
    "contrast_tokens",
    "mean_patches",
    "attended_patches",
    "max_pool",
    "max_similarity",
    "mean_similarity",
]
Projection = Literal["none", "per_block", "shared"]


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; every process must call it.

    Gradients go back to the process that a row came from, summed over all that used it, so that the gradient of
    a loss over the gathered rows is that of one process holding them all. (Gathering without gradient, as most
    published code does, leaves each process the gradient of its own rows as seen by itself alone.)

    Args:
        x: (rows, ...); the number of rows may differ between processes.

    Returns:
        (rows of all processes, ...); ``x`` itself on one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    own = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    rows = [int(count) for count in counts]
    padded = torch.cat([x, x.new_zeros(max(rows) - len(x), *x.shape[1:])])
    gathered: tuple[Tensor, ...] = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([part[:count] for part, count in zip(gathered, rows, strict=True)])


def contrastive_loss(similarity: Tensor, takes_part: Tensor, temperature: float | Tensor) -> Tensor:
    """Equations 4 to 6: L = (L_va + L_av) / 2, each row's partner against all other rows that take part.

    Args:
        similarity: sim(v_b, a_j) (rows, rows), partners on the diagonal.
        takes_part: (rows,) bool.
        temperature: tau, a number or a scalar.

    Returns:
        The mean over the rows that take part, a scalar; 0 where there are none.
    """
    logits = similarity / temperature
    # Finite, so that a batch in which nothing takes part has a gradient, of zero.
    barred = torch.finfo(logits.dtype).min
    partner = logits.diagonal()
    to_audio = logits.masked_fill(~takes_part, barred).logsumexp(1) - partner
    to_video = logits.masked_fill(~takes_part[:, None], barred).logsumexp(0) - partner
    both = ((to_audio + to_video) / 2).masked_fill(~takes_part, 0.0)
    return both.sum() / takes_part.sum().clamp(min=1)


class BlockwiseContrast(nn.Module):
    """The contrastive losses of all contrasted blocks.

    Args:
        dims: Channels of sound and of frames at each contrasted block, in order.
        feature: What the layers record and how two features are compared; see ``MaAvtConfig.contrast``.
        projection: Whether features pass a linear layer before they are compared, and whether blocks share it.
        projection_dim: Channels behind it.
        temperature: tau.
        reduce: Whether the blocks' losses are added (Equation 10) or averaged.
        weight: Factor of the result.
    """

    def __init__(
        self,
        dims: Sequence[tuple[int, int]],
        feature: Feature,
        *,
        projection: Projection,
        projection_dim: int,
        temperature: float,
        reduce: Literal["sum", "mean"],
        weight: float,
    ) -> None:
        super().__init__()
        self.feature, self.temperature, self.reduce, self.weight = feature, temperature, reduce, weight
        made = {"none": [], "per_block": list(dims), "shared": list(dims[:1])}[projection]
        self.audio = nn.ModuleList(nn.Linear(audio, projection_dim) for audio, _ in made)
        self.video = nn.ModuleList(nn.Linear(video, projection_dim) for _, video in made)

    def forward(self, audio: Sequence[Tensor], video: Sequence[Tensor], takes_part: Tensor) -> Tensor:
        """Sum or mean over k of L_cnt^k, weighted.

        Args:
            audio: Features of the sound by block, (rows, audio dim).
            video: Of the frames, (rows, video dim); their patches (rows, patches, video dim) where the
                similarity is taken patch by patch.
            takes_part: Rows that are pairs of the same event, (rows,) bool.

        Returns:
            A scalar, the same on all processes.
        """
        takes_part = gather_rows(takes_part.float()) > 0
        losses = []
        # In half precision a similarity divided by a small temperature would keep two digits.
        with torch.autocast(takes_part.device.type, enabled=False):
            for block, (a, v) in enumerate(zip(audio, video, strict=True)):
                a, v = (
                    self._project(self.audio, block, a.float()),
                    self._project(self.video, block, v.float()),
                )
                own_rows = self.similarity(v, gather_rows(a))
                losses.append(contrastive_loss(gather_rows(own_rows), takes_part, self.temperature))
            total = torch.stack(losses).sum()
        return self.weight * (total / len(losses) if self.reduce == "mean" else total)

    def similarity(self, video: Tensor, audio: Tensor) -> Tensor:
        """Cosine similarity of every row of frames with every row of sound (Table 3's matching functions).

        Args:
            video: (rows, dim), of unit length, or (rows, patches, dim).
            audio: (other rows, dim), of unit length.

        Returns:
            (rows, other rows).
        """
        if self.feature == "max_similarity":
            return (video @ audio.T).amax(1)
        if self.feature == "mean_similarity":
            return video.mean(1) @ audio.T
        return video @ audio.T

    @staticmethod
    def _project(projections: nn.ModuleList, block: int, feature: Tensor) -> Tensor:
        if len(projections):
            feature = projections[block if len(projections) > 1 else 0](feature)
        return F.normalize(feature, dim=-1)
