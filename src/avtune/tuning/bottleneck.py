"""The bottleneck adapter: down, activation, up, with the norms and the gate that its users disagree about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

GateOrder = Literal["norm_then_gate", "gate_then_norm"]
UpStart = Literal["random", "zero"]


class GroupedLinear(nn.Module):
    """A linear map whose channels are split into groups that do not see each other.

    Equal to a 1x1 convolution with ``groups``, on tokens of shape (..., channels), without leaving that layout.

    Args:
        in_features: Input channels, divisible by ``groups``.
        out_features: Output channels, divisible by ``groups``.
        groups: Number of groups.
        bias: Add a trained vector, zero at the start.

    Raises:
        ValueError: If a channel count is not divisible by ``groups``.
    """

    def __init__(self, in_features: int, out_features: int, groups: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        if in_features % groups or out_features % groups:
            raise ValueError(
                f"{groups} groups do not divide {in_features} -> {out_features} channels; choose groups (or the "
                "reduction) so that both are multiples of it"
            )
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., in_features) to (..., out_features)."""
        if self.groups == 1:
            return F.linear(x, self.weight, self.bias)
        parts = zip(x.chunk(self.groups, dim=-1), self.weight.chunk(self.groups), strict=True)
        mapped = torch.cat([F.linear(part, weight) for part, weight in parts], dim=-1)
        return mapped if self.bias is None else mapped + self.bias


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of tokens (batch, length, channels) over batch and length.

    In training under several processes the statistics are those of all of them, so that a run on two
    processes equals a run on one with the same global batch.

    Attributes:
        updates: Whether a forward pass in training moves the running statistics.
    """

    updates = True

    # PyTorch's CPU kernel returns wrong gradients for (B, C, N, 1) inputs whose strides differ from those of
    # the incoming gradient; on a (B*N, C) matrix it is right.
    def forward(self, x: Tensor) -> Tensor:
        """Normalise tokens (batch, length, channels); the shape stays."""
        flat = x.reshape(-1, x.shape[-1])
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self._over_processes(flat).reshape(x.shape)
        if self.training and not self.updates:
            assert self.running_mean is not None
            assert self.running_var is not None
            spare = self.running_mean.clone(), self.running_var.clone()
            own = F.batch_norm(flat, *spare, self.weight, self.bias, training=True, eps=self.eps)
            return own.reshape(x.shape)
        return super().forward(flat).reshape(x.shape)

    def _over_processes(self, tokens: Tensor) -> Tensor:
        # Sums of squares need more digits than half precision has.
        flat = tokens.float()
        count = flat.new_tensor([float(flat.shape[0])])
        sums: Tensor = _SumOverProcesses.apply(  # type: ignore[no-untyped-call]
            torch.cat([flat.sum(0), (flat * flat).sum(0), count])
        )
        channels = flat.shape[1]
        total, squares, size = sums[:channels], sums[channels:-1], sums[-1:]
        mean = total / size
        variance = squares / size - mean * mean
        if self.updates:
            self._update(mean.detach(), (variance * size / (size - 1)).detach())
        normalised: Tensor = (flat - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return normalised.to(tokens.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)
        self.num_batches_tracked += 1


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed


@contextmanager
def statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Within it, forward passes leave running statistics alone: a recomputed pass must not count twice."""
    norms = [part for module in modules for part in module.modules() if isinstance(part, TokenBatchNorm)]
    for norm in norms:
        norm.updates = False
    try:
        yield
    finally:
        for norm in norms:
            norm.updates = True


class Bottleneck(nn.Module):
    """Down-projection, activation, up-projection (Equation 9 of LAVISH; Houlsby et al., 2019).

    ``z = gate * norm_after(norm_up(up(relu(norm_down(down(norm_before(x)))))))`` with every part but ``down``
    and ``up`` optional. With ``gate``, or with ``up_start`` zero, the output is exactly zero until it has been trained.

    Args:
        dim: Channels of the tokens.
        reduction: ``dim // reduction`` is the width of the bottleneck.
        groups: Groups of both projections.
        batch_norm: Batch normalisation after each projection.
        norm_before: LayerNorm in front.
        norm_after: LayerNorm behind.
        gate: Multiply by a trained scalar that starts at zero.
        gate_order: Where the gate stands relative to ``norm_after``.
        relu: Whether there is an activation between the projections.
        bias: Whether the projections have a bias.
        up_start: How ``up`` starts: ``random``, or ``zero``.
    """

    def __init__(
        self,
        dim: int,
        *,
        reduction: int = 8,
        groups: int = 1,
        batch_norm: bool = False,
        norm_before: bool = False,
        norm_after: bool = False,
        gate: bool = True,
        gate_order: GateOrder = "norm_then_gate",
        relu: bool = True,
        bias: bool = False,
        up_start: UpStart = "random",
    ) -> None:
        super().__init__()
        width = dim // reduction
        if width < 1:
            raise ValueError(f"reduction {reduction} leaves no channel of {dim}; choose at most {dim}")
        self.norm_before = nn.LayerNorm(dim) if norm_before else nn.Identity()
        self.down = GroupedLinear(dim, width, groups, bias=bias)
        self.norm_down = TokenBatchNorm(width) if batch_norm else nn.Identity()
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.up = GroupedLinear(width, dim, groups, bias=bias)
        if up_start == "zero":
            nn.init.zeros_(self.up.weight)
        self.norm_up = TokenBatchNorm(dim) if batch_norm else nn.Identity()
        self.norm_after = nn.LayerNorm(dim) if norm_after else nn.Identity()
        self.gate = nn.Parameter(torch.zeros(1)) if gate else None
        self.gate_first = gate_order == "gate_then_norm"

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, length, dim) to what is added to them, of the same shape."""
        z: Tensor = self.norm_down(self.down(self.norm_before(x)))
        z = self.norm_up(self.up(self.activation(z)))
        if self.gate is None:
            return self.norm_after(z)  # type: ignore[no-any-return]
        if self.gate_first:
            return self.norm_after(self.gate * z)  # type: ignore[no-any-return]
        if isinstance(norm := self.norm_after, nn.LayerNorm):
            # The gate joins the norm's own weights: what stands between them need not be kept for the backward pass.
            return F.layer_norm(
                z, norm.normalized_shape, self.gate * norm.weight, self.gate * norm.bias, norm.eps
            )
        return self.gate * z
