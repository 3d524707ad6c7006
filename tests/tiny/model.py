"""How a test asks for a pipeline with tiny random weights, and calls it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from PIL import Image
from torch import nn

__all__ = ["Tiny", "embeds", "noise", "photo", "seeded"]


@dataclass(frozen=True)
class Tiny:
    """One pipeline of a family; each file of this package lists its own as `TINY`."""

    name: str
    """Unique among all."""
    build: Callable[[], Any]
    """-> a fresh pipeline, CPU, float32, eval; repeated builds are equal."""
    call: Callable[..., Any]
    """(pipe, **changes to the arguments) -> Tensor: latents where the pipeline can give them; generator seed 0."""
    denoiser: str = "transformer"
    """Attribute of the pipeline whose forward gets the latents."""
    pair: Callable[[], dict[str, Any]] | None = None
    """-> changes with which `call`, given a list of two generators, makes two clips; None: not said, or it cannot."""


def seeded(build: Callable[..., Any]) -> Callable[..., Any]:
    """A builder whose pipeline is the same every time, ready to be called and silent."""

    @wraps(build)
    def built(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = build(*args, **kwargs)
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return built


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeds(*shape: int, seed: int = 1) -> torch.Tensor:
    """What a text encoder might have said."""
    return torch.randn(shape, generator=noise(seed))


def photo(height: int, width: int, *, seed: int = 5) -> Image.Image:
    pixels = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=noise(seed))
    return Image.fromarray(pixels.numpy())
