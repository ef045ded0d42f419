"""FSDP2: a model's weights, gradients and optimiser state spread over the processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from avtune.pretrain.blocks import PackedBlock
from avtune.pretrain.objective import PretrainingModel


def shard(model: PretrainingModel, device: torch.device) -> None:
    """Spread a model, in place: each block is put together just before it is used, and taken apart behind it.

    Args:
        model: The same on every process.
        device: This process's.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model.to(device)
    for module in model.modules():
        if isinstance(module, PackedBlock):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "features")
