"""The pretraining objective of the nano backbone: contrast, canonical pose and denoising, in one masked pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from shapes import CANONICAL, Views
from torch import Tensor, nn

from avtune.backbones.nano import create_nano

PATCH = 8
DECODED = PATCH * PATCH * 4


@dataclass
class Weights:
    """Share of each term in the loss."""

    contrast: float = 0.5
    canonical: float = 1.0
    hidden: float = 2.0
    visible: float = 1.0
    mask: float = 0.25


def patches(image: Tensor) -> Tensor:
    """(n, channels, side, side) to (n, patches, channels * PATCH * PATCH)."""
    count, channels, side, _ = image.shape
    cells = side // PATCH
    split = image.reshape(count, channels, cells, PATCH, cells, PATCH)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(count, cells * cells, channels * PATCH * PATCH)


class HiddenDecoder(nn.Module):
    """Predicts chosen patches by one cross-attention block from the visible tokens (CrossMAE's cheap decoder)."""

    def __init__(self, width: int, positions: int, dim: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(positions, dim) * 0.02)
        self.memory = nn.Linear(width, 2 * dim)
        self.ask = nn.Linear(dim, dim)
        self.join = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.final = nn.LayerNorm(dim)
        self.heads = heads

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens (n, visible, width) and positions (n, wanted) to features (n, wanted, dim)."""
        query = self.query[positions]
        n, wanted, dim = query.shape

        def split(x: Tensor) -> Tensor:
            return x.reshape(n, -1, self.heads, dim // self.heads).transpose(1, 2)

        key, value = self.memory(tokens).chunk(2, -1)
        # Written out: the fused kernel's backward in bfloat16 on CPUs is several times slower.
        score = split(self.ask(query)) @ split(key).transpose(-2, -1) * (dim // self.heads) ** -0.5
        mixed = (score.softmax(-1) @ split(value)).transpose(1, 2).reshape(n, wanted, dim)
        query = query + self.join(mixed)
        return self.final(query + self.feed(self.norm(query)))


class Objective(nn.Module):
    """The encoder and everything that is thrown away after pretraining."""

    def __init__(self, seed: int, weights: Weights) -> None:
        super().__init__()
        self.encoder = create_nano(pretrained=False, seed=seed)
        for block in self.encoder.blocks:
            block.attn.fused_attn = False
        width, positions = self.encoder.embed_dim, self.encoder.pos_embed.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            # Batch norm keeps the contrast from falling into one constant answer in the first steps.
            self.projector = nn.Sequential(
                nn.Linear(width, 512),
                nn.BatchNorm1d(512),
                nn.GELU(),
                nn.Linear(512, 128),
                nn.BatchNorm1d(128),
            )
            self.canonical = nn.ModuleList(nn.Linear(width, CANONICAL**2) for _ in range(2))
            self.decoder = HiddenDecoder(width, positions)
            self.decode_hidden = nn.Linear(128, DECODED)
            self.decode_visible = nn.Linear(width, DECODED)
        self.scale = nn.Parameter(torch.tensor(1.6))
        self.weights = weights

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Final normalised tokens (n, kept, width) of the visible patches (n, kept)."""
        tokens = self.encoder.patch_embed(images) + self.encoder.pos_embed
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))
        for block in self.encoder.blocks:
            tokens = block(tokens)
        return self.encoder.norm(tokens)

    def forward(
        self, families: list[Views], visible: Tensor, wanted: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch: the families' views, objects first.

        Args:
            families: Two views per identity, view v of identity i in row v * identities + i.
            visible: Patches that the encoder sees, (rows of all families, kept).
            wanted: Patches that the decoder predicts, (rows of all families, predicted).
        """
        tokens = self.encode(torch.cat([f.noisy for f in families]), visible)
        pooled = tokens.mean(1)
        target = torch.cat([patches(torch.cat([f.clean, f.mask[:, None]], 1)) for f in families])
        hidden = self.decode_hidden(self.decoder(tokens, wanted))
        terms: dict[str, Tensor] = {}
        objects = len(families[0].mask)
        terms["hidden"], mask_hidden = self.painted(hidden, target, wanted, objects)
        terms["visible"], mask_visible = self.painted(self.decode_visible(tokens), target, visible, objects)
        terms["mask"] = mask_hidden + mask_visible
        contrast, canonical = [], []
        for index, rows in enumerate(pooled.split([len(f.mask) for f in families])):
            embedded = F.normalize(self.projector(rows).float(), dim=1)
            contrast.append(self.matched(*embedded.chunk(2)))
            wish = families[index].canonical.flatten(1).repeat(2, 1)
            wish = (wish - wish.mean(0)) / wish.std(0).clamp(min=0.05)
            answer = self.canonical[index](rows).float()
            canonical.append(F.mse_loss(answer, wish))
        terms["contrast"], terms["canonical"] = torch.stack(contrast).mean(), torch.stack(canonical).mean()
        loss = sum(getattr(self.weights, name) * value for name, value in terms.items())
        report = {name: float(value.detach()) for name, value in terms.items()}
        for kind, values in (("contrast", contrast), ("canonical", canonical)):
            report.update({f"{kind}_{i}": float(v.detach()) for i, v in enumerate(values)})
        return loss, report

    def painted(self, answer: Tensor, target: Tensor, where: Tensor, objects: int) -> tuple[Tensor, Tensor]:
        """Squared error of the clean colours, and cross-entropy of the objects' mask (first `objects` rows)."""
        target = target.gather(1, where[..., None].expand(-1, -1, target.shape[2]))
        answer = answer.float()
        split = PATCH * PATCH * 3
        colour = F.mse_loss(answer[..., :split], target[..., :split])
        return colour, F.binary_cross_entropy_with_logits(
            answer[:objects, :, split:], target[:objects, :, split:]
        )

    def matched(self, first: Tensor, second: Tensor) -> Tensor:
        """InfoNCE both ways, negatives from both views."""
        scale = self.scale.exp().clamp(max=50)
        rows = torch.cat([first, second])
        logits = (rows @ rows.T) * scale
        logits.fill_diagonal_(-1e4)
        count = len(first)
        partner = torch.arange(2 * count).roll(count)
        return F.cross_entropy(logits, partner)
