"""What must be known of a pipeline class to attach to it: facts as data, keyed by class name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unleak.core.start import Start

__all__ = ["SEAMS", "Seam", "init_noise_sigma", "seam_of"]


def init_noise_sigma(scheduler: Any) -> float:
    """Factor of pipelines that scale their noise by the scheduler's `init_noise_sigma`."""
    return float(scheduler.init_noise_sigma)


@dataclass(frozen=True)
class Seam:
    """Facts of one pipeline class. A pipeline of our own carries its seam as the attribute `unleak_seam`."""

    layout: str
    """Axes of the noise that `prepare_latents` draws first, e.g. `b f c h w`."""
    factor: Callable[[Any], float]
    """Scheduler (timesteps set) -> c, what `prepare_latents` multiplies that noise by."""
    own_schedule: tuple[str, ...] = ("sigmas",)
    """Arguments of the call by which a user brings a schedule of their own."""
    motion: Mapping[str, Start] = field(default_factory=dict)
    """Presets: how much motion -> where to start."""


SEAMS: dict[str, Seam] = {
    "StableVideoDiffusionPipeline": Seam(
        layout="b f c h w",
        factor=init_noise_sigma,
        # Training-time sigma_max is 700. Medium is the paper's published fix; low and high are our choice of a step of
        # about 2.5 in sigma to either side: not published, and below some 20 the picture suffers.
        motion={"low": Start.sigma(250), "medium": Start.sigma(100), "high": Start.sigma(40)},
    ),
}
"""Pipeline class name (of the class or a base) -> its seam."""


def seam_of(pipe: Any) -> Seam:
    """The seam of a pipeline; ValueError if nothing is known of its class."""
    own: Seam | None = getattr(pipe, "unleak_seam", None)
    if own is not None:
        return own
    for base in type(pipe).__mro__:
        if base.__name__ in SEAMS:
            return SEAMS[base.__name__]
    raise ValueError(f"unleak cannot attach to {type(pipe).__name__}; it knows {', '.join(SEAMS)}.")
