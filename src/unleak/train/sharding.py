"""Weights in parts: every process holds a share of each layer and gathers the rest when it needs it (FSDP2)."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["as_parts_of", "gather_anew", "own_part", "shard", "synchronise"]


def shard(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Cut the weights of `networks` into parts, layer by layer, one for each process of the default group.

    Their parameters are new objects afterwards, by the same names.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for network in networks:
        kinds = set(getattr(network, "_no_split_modules", None) or getattr(network, "_repeated_blocks", None) or ())
        # From the inside out: a layer in a layer has its own parts.
        for layer in reversed(list(network.modules())):
            if type(layer).__name__ in kinds and layer is not network:
                fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)


def synchronise(networks: Iterable[nn.Module], wanted: bool) -> None:
    """Whether the next backward pass adds the gradients of all processes up: with the last piece of a step."""
    for network in networks:
        assert isinstance(network, FSDPModule)
        network.set_requires_gradient_sync(wanted)


def gather_anew(networks: Iterable[nn.Module]) -> None:
    """After weights were changed by other means than a step: what was gathered of them is of no use any more.

    A network keeps the weights of its outermost layer whole after a forward pass that no backward pass follows.
    """
    for network in networks:
        if isinstance(network, FSDPModule):
            network.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, which shares its memory; a whole tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_parts_of(like: Tensor, whole: Tensor) -> Tensor:
    """`whole` cut as `like` is, or as it is where that is whole."""
    if not isinstance(like, DTensor) or whole.ndim == 0:
        return whole
    parts: Any = distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
    return parts
