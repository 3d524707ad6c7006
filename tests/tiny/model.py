"""How a test asks for a pipeline with tiny random weights, and calls it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Tiny"]


@dataclass(frozen=True)
class Tiny:
    """One pipeline of a family; each file of this package lists its own as `TINY`."""

    name: str
    """Unique among all."""
    build: Callable[[], Any]
    """-> a fresh pipeline, CPU, float32, eval; repeated builds are equal."""
    call: Callable[..., Any]
    """(pipe, **changes to the call's arguments) -> Tensor, latents where the pipeline can; the generator's seed is 0."""
    denoiser: str = "transformer"
    """Attribute of the pipeline whose forward gets the latents."""
