"""Optimizers: AdamW, the same with its state in 8 bits, and Muon for networks trained from scratch."""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unleak.train.config import Recipe

# Muon's defaults (Jordan et al. 2024): momentum, and the odd polynomial whose iteration takes singular values near 1.
_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def make_optimizer(recipe: Recipe, weights: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Make the recipe's optimizer over the named `weights`."""
    common: dict[str, Any] = {"lr": recipe.lr, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(weights.values(), fused=recipe.sharding == "none", **common)
    if recipe.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # whose absence `check` tells

        eight: torch.optim.Optimizer = AdamW8bit(weights.values(), **common)
        return eight
    hidden = {
        n: p for n, p in weights.items() if p.ndim >= 2 and not n.startswith(("conv_in.", "conv_out.", "readout."))
    }
    rest = [p for n, p in weights.items() if n not in hidden]
    return Muon(hidden.values(), rest, **common)


def lr_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0): linear warm-up, then constant, or down to 0."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    done = min(1.0, max(0, step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[recipe.schedule]
    return recipe.lr * warm * decay


class Muon(torch.optim.AdamW):
    """Muon for `hidden` (matrices; a convolution is a matrix of its output channels), AdamW for `rest`.

    Each matrix moves along its momentum with all singular values set near 1, scaled by 0.2 sqrt(longer side): one
    learning rate suits both kinds (Liu et al. 2025, arXiv 2502.16982, eq. 4). `step` uses the gradients of `hidden` up.
    """

    def __init__(self, hidden: Iterable[nn.Parameter], rest: Iterable[nn.Parameter], **options: Any):
        groups = [{"params": list(hidden), "orthogonal": True}, {"params": list(rest), "orthogonal": False}]
        super().__init__([g for g in groups if g["params"]], fused=True, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; the learning rate of each group is read from it."""
        assert closure is None, "Muon does not re-evaluate the loss"
        for group in self.param_groups:
            if group["orthogonal"]:
                for same_shape in _by_shape(p for p in group["params"] if p.grad is not None):
                    self._step_matrices(same_shape, group["lr"], group["weight_decay"])
        return super().step()  # what is left with a gradient

    def _step_matrices(self, weights: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        directions = []
        for p in weights:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                # AdamW expects a step count in every state it loads.
                state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(p)
            momentum = state["momentum"]
            momentum.lerp_(p.grad, 1 - _MOMENTUM)
            directions.append(p.grad.lerp(momentum, _MOMENTUM).flatten(1))
            p.grad = None
        update = orthogonalize(torch.stack(directions))
        scale = 0.2 * max(update.shape[1:]) ** 0.5
        for p, direction in zip(weights, update, strict=True):
            p.mul_(1 - lr * weight_decay).add_(direction.view_as(p), alpha=-lr * scale)


def orthogonalize(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Return U V^T of each matrix U S V^T, roughly: singular values become 0.7 to 1.2; products in bfloat16."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def _by_shape(weights: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield lists of weights whose matrices have one shape."""

    def shape(p: nn.Parameter) -> tuple[int, int]:
        return len(p), p.numel() // len(p)

    for _, same in groupby(sorted(weights, key=shape), key=shape):
        yield list(same)
