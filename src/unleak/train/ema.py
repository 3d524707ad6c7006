"""The exponential moving average of the trained weights, which is what a run hands over."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unleak.train.sharding import own_part


class EMA:
    """average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) at update n, so that the first
    weights are soon forgotten."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.average = {name: tensor.detach().float().clone() for name, tensor in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], n: int) -> None:
        """Take in `weights` after optimizer step `n` (the first is 1)."""
        decay = min(self.decay, (1 + n) / (10 + n))
        current = [own_part(weights[name].detach()).float() for name in self.average]
        torch._foreach_lerp_([own_part(tensor) for tensor in self.average.values()], current, 1 - decay)
