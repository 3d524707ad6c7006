"""What a run is made of at a step: weights, their average, what the optimizer keeps of each, the motion read-out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unleak.train import checkpoint
from unleak.train.ema import EMA
from unleak.train.readout import MotionReadout

__all__ = ["TrainingState"]


class TrainingState:
    """The tensors of a run, whole or this process's parts, by the names that checkpoints use.

    The optimizer's state is made at once, so that a checkpoint can be compared with it before the first step.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], ema: EMA, optimizer: Any, readout: MotionReadout | None = None
    ):
        self.weights, self.ema, self.optimizer, self.readout = weights, ema, optimizer, readout
        read = readout.linear.named_parameters() if readout else ()
        self.trained: dict[str, nn.Parameter] = {**weights, **{f"readout.{name}": p for name, p in read}}
        """The weights and those of the read-out, by name."""
        _begin(optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by its name: KIND/NAME, or optimizer/NAME/SLOT."""
        found = {f"model/{name}": weight.detach() for name, weight in self.weights.items()}
        found |= {f"ema/{name}": tensor for name, tensor in self.ema.average.items()}
        if self.readout:
            found |= {f"readout/{name}": tensor for name, tensor in self.readout.linear.state_dict().items()}
        for name, weight in self.trained.items():
            for slot, value in self.optimizer.state[weight].items():
                found[f"optimizer/{name}/{slot}"] = torch.as_tensor(value)
        return found

    def restore(self, stored: checkpoint.Stored) -> None:
        """Fill everything from a checkpoint. Raises ValueError, before anything is changed, if it does not fit."""
        names = {weight: name for name, weight in self.trained.items()}
        order = [names[weight] for group in self.optimizer.param_groups for weight in group["params"]]
        stored, tensors = stored.named(order), self.tensors()
        checkpoint.compare(stored, tensors)
        checkpoint.load(stored, tensors)
        for name, weight in self.trained.items():
            kept = self.optimizer.state[weight]
            for slot, value in kept.items():
                if not isinstance(value, Tensor):  # a number, of which `tensors` has a copy
                    kept[slot] = type(value)(tensors[f"optimizer/{name}/{slot}"].item())


@torch.no_grad()
def _begin(optimizer: Any) -> None:
    """Have the optimizer make its state, as before its first step: a step of no length, counted as none."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        for weight in group["params"]:
            state = optimizer.state[weight]
            state["step"] = state["step"] * 0
