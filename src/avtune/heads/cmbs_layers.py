"""The attention layers of CMBS: in a frame, along time, between the streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEADS = 4


class SpatialChannelAttention(nn.Module):
    """Where in a frame and in which of its channels to look, as the sound and the frame itself say.

    Args:
        audio_dim: Channels of the sound.
        dim: Channels of a cell.
        beta: How much the frame's attention to itself adds.
    """

    def __init__(self, audio_dim: int, dim: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.query, self.key = nn.Linear(dim, dim // 4), nn.Linear(dim, dim // 4)
        self.value, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.2)
        self.own_mean, self.own_cells = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        self.own_score = nn.Linear(dim // 2, 1)
        self.channel_audio, self.channel_video = nn.Linear(audio_dim, dim), nn.Linear(dim, dim)
        self.channel_down, self.channel_up = nn.Linear(dim, dim // 2), nn.Linear(dim // 2, dim)
        self.spatial_audio, self.spatial_video = nn.Linear(audio_dim, dim // 2), nn.Linear(dim, dim // 2)
        self.spatial_score = nn.Linear(dim // 2, 1)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """Sum up each frame.

        ``u = norm(V + softmax(Q Kᵀ) W V)``; ``o = Σ_c softmax_c(tanh(w_o(relu(A u) relu(B ū)))) u_c``;
        ``k = σ(up relu(down mean_c(relu(C u) relu(D a))))``; ``x = V (1 + k)``;
        ``y = Σ_c softmax_c(tanh(w_s(relu(E x) relu(F a)))) x_c``; result ``y (1 + β σ(o))``.

        Args:
            audio: (batch, T, audio dim).
            video: (batch, T, cells, dim).

        Returns:
            (batch, T, dim).
        """
        related = (self.query(video) @ self.key(video).transpose(-1, -2)).softmax(dim=-1)
        context = self.norm(video + self.dropout(related @ self.value(video)))
        mean = torch.relu(self.own_mean(context.mean(dim=-2, keepdim=True)))
        own = _weighted(self.own_score(torch.relu(self.own_cells(context)) * mean), context)

        heard = torch.relu(self.channel_audio(audio)).unsqueeze(-2)
        joint = (heard * torch.relu(self.channel_video(context))).mean(dim=-2)
        channels = torch.sigmoid(self.channel_up(torch.relu(self.channel_down(joint))))
        weighted = video * (channels.unsqueeze(-2) + 1)

        heard = torch.relu(self.spatial_audio(audio)).unsqueeze(-2)
        seen = _weighted(self.spatial_score(torch.relu(self.spatial_video(weighted)) * heard), weighted)
        return seen * (1 + self.beta * torch.sigmoid(own))


def _weighted(scores: Tensor, video: Tensor) -> Tensor:
    weights = torch.tanh(scores).softmax(dim=-2)
    return (weights * video).sum(dim=-2)


class FeedForward(nn.Module):
    """What closes a layer: ``x = norm(x + y)``, then ``norm(x + W relu(W x))``.

    Args:
        dim: Channels.
        feed: Width between the linear layers.
    """

    def __init__(self, dim: int, feed: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, feed), nn.Linear(feed, dim)
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what was attended to, (batch, T, dim), and feed it on."""
        x = self.norm_attention(x + self.dropout(attended))
        fed = self.down(self.dropout(torch.relu(self.up(x))))
        closed: Tensor = self.norm_feed(x + self.dropout(fed))
        return closed


class TemporalLayer(nn.Module):
    """Attention along time with its feed-forward layer, norms behind.

    Args:
        dim: Channels.
        feed: Width of the feed-forward layer.
    """

    def __init__(self, dim: int, feed: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, HEADS, dropout=0.1, batch_first=True)
        self.feed = FeedForward(dim, feed)

    def forward(self, x: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Segments (batch, T, dim) in the context of ``keys`` (batch, keys, dim), those that exist by ``valid``."""
        attended, _ = self.attention(x, keys, keys, key_padding_mask=~valid, need_weights=False)
        fed: Tensor = self.feed(x, attended)
        return fed


class TemporalEncoder(nn.Module):
    """A linear layer and two temporal layers: a stream's memory.

    Args:
        input_dim: Channels of the stream.
        dim: Channels of the memory.
        feed: Width of the feed-forward layers.
    """

    def __init__(self, input_dim: int, dim: int, feed: int) -> None:
        super().__init__()
        self.enter = nn.Linear(input_dim, dim)
        self.layers = nn.ModuleList([TemporalLayer(dim, feed), TemporalLayer(dim, feed)])

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Segments (batch, T, input dim) to memory (batch, T, dim)."""
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x, x, valid)
        return x


class CrossModalLayer(TemporalLayer):
    """Queries of one stream to the memory of the other and to themselves."""

    def forward(self, x: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """One stream's segments (batch, T, dim) with what they find in both; ``keys`` is the other's memory."""
        return super().forward(x, torch.cat([keys, x], dim=1), torch.cat([valid, valid], dim=1))


class Interaction(nn.Module):
    """What both streams share, their product, asks both: ``norm(v a + attention(v a, [a, v]))``.

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, HEADS, dropout=0.2, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, other: Tensor, valid: Tensor) -> Tensor:
        """Segments (batch, T, dim) of one stream in the light of the other's."""
        product = x * other
        keys = torch.cat([other, x], dim=1)
        absent = ~torch.cat([valid, valid], dim=1)
        attended, _ = self.attention(product, keys, keys, key_padding_mask=absent, need_weights=False)
        joint: Tensor = self.norm(product + self.dropout(attended))
        return joint


def weight_count(module: nn.Module) -> int:
    """Number of a module's weights."""
    return sum(weight.numel() for weight in module.parameters())
