"""The facts of one pipeline class, and a few functions that describe them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from unleak.attach.seams.tokens import ImageTokens
from unleak.core.process import Level, NoiseProcess
from unleak.core.start import Start

__all__ = ["Condition", "Seam", "by_number", "config_sigma_max", "init_noise_sigma", "one"]

Arguments = Mapping[str, Any]
"""Arguments of the pipeline's call by name, defaults included."""


def one(scheduler: Any) -> float:
    """Return the factor of pipelines that use their noise as drawn."""
    del scheduler
    return 1.0


def init_noise_sigma(scheduler: Any) -> float:
    """Return the factor of pipelines that scale their noise by the scheduler's `init_noise_sigma`, if it has one."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def config_sigma_max(scheduler: Any) -> float:
    """Return the factor of pipelines that scale their noise by the configured sigma_max."""
    return float(scheduler.config.sigma_max)


def by_number(steps: int) -> Mapping[str, Any]:
    """Return the grid of pipelines that ask their scheduler for a number of steps and no more."""
    return {"num_inference_steps": steps}


@dataclass(frozen=True)
class Condition:
    """Where the image is in the denoiser's input."""

    place: Callable[[Any], tuple[slice, ...]]
    """Pipeline -> index of the image's latents in that input (every frame of them; neither masks nor noise)."""
    frames: int
    """The axis of frames there."""
    every_frame: bool = False
    """Whether every frame there is the image; otherwise the first is, and the others are padding."""
    argument: str = "hidden_states"
    """Which argument of the denoiser's forward it is."""
    blank_frames: bool = False
    """Whether the frames after the first are blank video frames that went through the VAE together with the image."""


@dataclass(frozen=True)
class Seam:
    """Facts of one pipeline class."""

    layout: str | None
    """Axes of the noise that `prepare_latents` draws first, e.g. `b f c h w`; `tokens`: packed, maybe more of them than
    the video has; None: it draws none, so its initial noise cannot be set."""
    factor: Callable[[Any], float] = one
    """Scheduler (timesteps set, if they are set by then) -> c, what `prepare_latents` multiplies that noise by."""
    added: Callable[[Any, Arguments], Tensor] | None = None
    """(pipeline, arguments of `prepare_latents`) -> what it adds to that noise afterwards; None: nothing."""
    own_schedule: tuple[str, ...] = ()
    """Arguments of the call by which a user brings a schedule of their own."""
    latents_first: bool = False
    """Whether the call prepares its latents before it sets its timesteps."""
    grid: Callable[[int], Mapping[str, Any]] = by_number
    """Number of steps -> the arguments with which the call sets its timesteps (mu apart)."""
    lead: Callable[[Any, Arguments], int] | None = None
    """(pipeline, arguments) -> how many latent frames in front of the video's are padding or reference images."""
    others: tuple[str, ...] = ()
    """Methods (of a modular pipeline, classes of blocks) whose first draw is that of another modality on the same
    schedule, such as sound."""
    refuse: Callable[[Any, Arguments], str | None] | None = None
    """(pipeline, arguments) -> why such a call cannot be honoured, and what to do; None if it can."""
    warn: Callable[[Any, Level, NoiseProcess], str | None] | None = None
    """(pipeline, level, process) -> what a user should know of starting there; None if nothing."""
    finish: Callable[[Any], Any] | None = None
    """Result of `prepare_latents` -> the same, right for a start below the full one."""
    branches: Literal["batched", "separate"] | None = None
    """How a guided step evaluates the denoiser: `batched`, once for [unconditional, conditional]; `separate`, for the
    conditional branch and then for the other; None: neither, or not known, so strategies cannot be attached."""
    condition: Condition | None = None
    """Where the image is in the denoiser's input; None: strategies on the image cannot be attached."""
    unusual: Callable[[Arguments], str | None] | None = None
    """Arguments of the call -> why, in this one, branches or condition are not as said here, so that strategies cannot
    act on it, and what to do; None if they are."""
    image_tokens: ImageTokens | None = None
    """Where the image's tokens are in the denoiser's self-attention; None: nowhere, or not known."""
    noise_arguments: tuple[str, ...] = ()
    """Arguments of the call that add noise to the image's latents y. `strength`, of the call or of each of its
    `conditions`, is a share s: y enters as s y + (1 - s) eps, at its own noise level. `image_cond_noise_scale` s: as
    y + s t^2 eps."""
    low_pass: tuple[float, float] | None = None
    """ALG's configuration for this family: factor of its filter, share of the steps that it acts in."""
    draws: str = "prepare_latents"
    """The method that draws the initial noise; of a modular pipeline, the class of the block."""
    motion: Mapping[str, Start] = field(default_factory=dict)
    """Presets: how much motion -> where to start."""
    motion_fixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """How much motion -> the fixes that a preset adds to its start, as `parse_fix` reads them."""
