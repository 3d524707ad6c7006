"""How several processes share the weights: each has all of them, or each a part and gathers the rest (FSDP2)."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from unleak.train.networks import named_again

__all__ = ["InParts", "Whole", "gather_anew", "layers_cut", "own_part", "shard"]


class Whole:
    """Every process has all weights, and the gradients of all processes are added up."""

    in_parts = False

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    def cut(self, view: Any, weights: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Return the weights as they are."""
        del view
        return weights

    def wrap(self, module: nn.Module) -> Any:
        """Return the module that adds the gradients of all processes up."""
        return self.accelerator.prepare_model(module)

    def piece(self, module: Any, networks: Mapping[str, nn.Module], *, last: bool) -> AbstractContextManager[Any]:
        """Open one piece of a step; the gradients are added up with the last one."""
        del networks
        return nullcontext() if last else self.accelerator.no_sync(module)

    def whole(self, norm: Tensor) -> Tensor:
        """Return the norm of all gradients."""
        return norm


class InParts:
    """Every process has a part of each layer's weights, and gathers the layer when it needs it."""

    in_parts = True

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    def cut(self, view: Any, weights: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Cut the networks into parts and return the new weights by the same names."""
        shard(view.networks.values(), self.accelerator.device)
        return named_again(view, weights)

    def wrap(self, module: nn.Module) -> Any:
        """Return the module, whose networks add their gradients up themselves."""
        return self.accelerator.prepare_model(module, evaluation_mode=True)

    def piece(self, module: Any, networks: Mapping[str, nn.Module], *, last: bool) -> AbstractContextManager[Any]:
        """Open one piece of a step; the gradients are added up with the last one."""
        del module
        for network in networks.values():
            assert isinstance(network, FSDPModule)
            network.set_requires_gradient_sync(last)
        return nullcontext()

    def whole(self, norm: Any) -> Tensor:
        """Return the norm of all gradients, of which each process has a part."""
        gathered: Tensor = norm.full_tensor()
        return gathered


def shard(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Cut the weights of `networks` into parts, layer by layer, one for each process of the default group.

    Their parameters are new objects afterwards, by the same names.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for network in networks:
        kinds = layers_cut(network)
        # From the inside out: a layer in a layer has its own parts.
        for layer in reversed(list(network.modules())):
            if type(layer).__name__ in kinds and layer is not network:
                fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)


def layers_cut(network: nn.Module) -> set[str]:
    """Return the classes of the layers that are cut, and gathered, one by one."""
    return set(getattr(network, "_no_split_modules", None) or getattr(network, "_repeated_blocks", None) or ())


def gather_anew(networks: Iterable[nn.Module]) -> None:
    """Drop gathered weights after they were changed by other means than a step.

    A network keeps the weights of its outermost layer whole after a forward pass that no backward pass follows.
    """
    for network in networks:
        if isinstance(network, FSDPModule):
            network.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds (the memory is shared), or a whole tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
