"""Reads ComfyUI's model sampling as a noise process, and moves the sigmas of a sampler to a lower start.

For a rectified-flow model ComfyUI's samplers work in x = x_t, and sigma is the flow sigma after the shift. For every
other model they work in x = x_t / alpha, and sigma is sigma_t / alpha_t. Nothing here imports ComfyUI: classes are
recognised by name.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unleak.core.grid import Coordinate, Flow, Karras, Table, few_steps, rescale, truncate
from unleak.core.process import RF, VE, VP, Level, NoiseProcess
from unleak.core.start import Start

__all__ = ["MODES", "Mode", "Moved", "Sampling", "moved"]

Mode = Literal["auto", "rescale", "truncate", "nearest"]
"""What becomes of the steps above a start: spaced anew below it (`rescale`) or left out (`truncate`).

`auto` is `rescale`, and `truncate` where there are so few steps that the model is distilled for them. `nearest` is the
same with the level that is nearest to the start instead of the next one below, but never the first: motion presets.
"""
MODES: tuple[Mode, ...] = ("auto", "rescale", "truncate")


@dataclass(frozen=True)
class Sampling:
    """The noise process of a ComfyUI model, and the time in which its schedules are spaced."""

    process: NoiseProcess
    coordinate: Coordinate

    @classmethod
    def of(cls, model_sampling: Any) -> "Sampling":
        """Read the `model_sampling` object of a model; ValueError for a kind that unleak does not know."""
        names = {base.__name__ for base in type(model_sampling).__mro__}
        if "CONST" in names:
            shift = float(getattr(model_sampling, "shift", 1.0))
            return cls(RF(), Flow(math.exp(shift) if "ModelSamplingFlux" in names else shift))
        known = names & {"EPS", "COSMOS_RFLOW"} and not names & {"X0", "StableCascadeSampling"}
        if known and "ModelSamplingContinuousEDM" in names:
            low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
            return cls(VE(low, high), Karras())
        if known and "ModelSamplingDiscrete" in names:
            sigmas = model_sampling.sigmas.detach().cpu().double()
            return cls(VP(1 / (1 + sigmas.square())), Table(sigmas.numpy()))
        kinds = " + ".join(base.__name__ for base in type(model_sampling).__bases__)
        raise ValueError(
            f"unleak does not know how this model noises its latents ({kinds}): it knows rectified flow, EDM and"
            " discrete schedules of alphas, so nothing was changed."
        )

    def sigma(self, level: Level) -> float:
        """Return ComfyUI's sigma of a level."""
        return level.flow_sigma if isinstance(self.process, RF) else level.edm_sigma

    def level(self, sigma: float) -> Level:
        """Return the level of ComfyUI's sigma, which may lie outside the process."""
        if isinstance(self.process, RF):
            return Level(1 - sigma, sigma)
        if isinstance(self.process, VE):
            return Level(1.0, sigma)
        return Level(1 / math.hypot(1, sigma), 1 / math.hypot(1, 1 / sigma) if sigma else 0.0)

    def signal(self, level: Level) -> float:
        """Return what ComfyUI divides x_t by: alpha, and 1 for rectified flow."""
        return 1.0 if isinstance(self.process, RF) else level.alpha

    def whole(self, sigmas: Float[Tensor, " n"]) -> float:
        """Return the number of steps of the whole schedule, from pure noise to the end, to which `sigmas` belongs.

        A sampler that stops early (the first of two experts) or starts late (denoise below 1) runs a part of it.
        """
        steps = len(sigmas) - 1
        top = self.sigma(self.process.noisiest)
        ends = torch.stack([sigmas[0], sigmas[-1]]).double().cpu().clamp(max=top).numpy()
        first, last = self.coordinate.time(ends).tolist()
        if sigmas[-1] == 0:
            return float(steps)
        full = self.coordinate.time(torch.tensor([top, 0.0], dtype=torch.float64).numpy()).tolist()
        return steps * (full[0] - full[1]) / max(first - last, 1e-12)

    def distilled(self, sigmas: Float[Tensor, " n"]) -> bool:
        """Return whether the schedule is so short that its model must be distilled for its levels."""
        return isinstance(self.process, RF) and few_steps(round(self.whole(sigmas)))


@dataclass(frozen=True)
class Moved:
    """The sigmas of a sampler with a lower start, and what a person should know about them."""

    sigmas: Float[Tensor, " m"]
    remarks: tuple[str, ...] = ()


def moved(sigmas: Float[Tensor, " n"], start: Start, mode: Mode, sampling: Sampling) -> Moved:
    """Return `sigmas`, falling and with an end, from `start` down.

    Sigmas that begin at or below the start stay as they are. ValueError for a start outside the noise process, at or
    below the end of `sigmas`, or in mode `rescale` where there are so few steps that the model is distilled for them.
    """
    if start.unit == "step":
        return _later(sigmas, start)
    level = start.resolve(sampling.process)
    sigma, first, last = sampling.sigma(level), float(sigmas[0]), float(sigmas[-1])
    if sigma >= first or math.isclose(sigma, first, rel_tol=1e-6):
        late = level != sampling.process.noisiest and not math.isclose(sigma, first, rel_tol=1e-3)
        remark = f"sampling begins at sigma {first:.4g}, already below the start {start}: its steps stay as they are"
        return Moved(sigmas, (remark,) if late else ())
    if sigma <= last:
        raise ValueError(
            f"start {start} is sigma {sigma:.4g}, at or below sigma {last:.4g} where this sampler ends: it would have"
            " no step to do. Choose a higher start, or let the first of two samplers end later."
        )
    falling = sigmas.double().cpu().numpy()
    distilled = sampling.distilled(sigmas)
    if mode == "rescale" and distilled:
        node = float(truncate(falling, sigma, snap=True)[0])
        raise ValueError(
            "mode rescale would give a few-step model noise levels that it was not distilled for: choose mode"
            f" truncate, which drops steps and begins at sigma {node:.4g} of the plain schedule, or more than 8 steps."
        )
    if distilled and mode != "nearest" and sigma < falling[-2]:
        raise ValueError(
            f"start {start} is sigma {sigma:.4g}, below the last step of this sampler (sigma {falling[-2]:.4g}): it"
            " would have nothing to do. Choose a higher start."
        )
    if mode == "nearest" and distilled:
        new = _nearest(falling, sigma, sampling)
    elif mode == "truncate" or distilled:
        new = truncate(falling, sigma, snap=distilled)
    else:
        new = rescale(falling, sigma, sampling.coordinate, anchor=_anchor(last, sampling))
    result = torch.from_numpy(new).to(sigmas)
    return Moved(result, tuple(_remarks(sigmas, result, sigma, start, sampling)))


def _later(sigmas: Float[Tensor, " n"], start: Start) -> Moved:
    """Return `sigmas` without its first steps; ValueError if none would be left."""
    steps, left_out = len(sigmas) - 1, start.steps_left_out
    if left_out >= steps:
        raise ValueError(f"start {start} leaves no step: this sampler has {steps}. Leave fewer out.")
    return Moved(sigmas[left_out:])


def _nearest(falling: Float64[np.ndarray, " n"], sigma: float, sampling: Sampling) -> Float64[np.ndarray, " m"]:
    """Return the schedule from its level nearest to `sigma` in time on; neither the first level counts nor the end."""
    if len(falling) < 3:
        return falling
    times = sampling.coordinate.time(np.append(falling[1:-1], sigma))
    return falling[1 + int(np.abs(times[:-1] - times[-1]).argmin()) :]


def _anchor(last: float, sampling: Sampling) -> float | None:
    """Return the level that stays in place: a flow that ends at 0 is scaled as a whole, all else is held at its end."""
    return 0.0 if last == 0 and isinstance(sampling.process, RF) else None


def _remarks(
    plain: Float[Tensor, " n"], new: Float[Tensor, " m"], sigma: float, start: Start, sampling: Sampling
) -> list[str]:
    remarks = []
    if not math.isclose(float(new[0]), sigma, rel_tol=1e-5):
        remarks.append(
            f"start {start} is sigma {sigma:.4g}; a schedule of few steps keeps to its own levels and begins at sigma"
            f" {float(new[0]):.4g}"
        )
    if plain[-1] > 0:  # the first of two experts
        ends = torch.stack([plain[0], new[0], plain[-1]]).double().cpu().numpy()
        top, first, last = sampling.coordinate.time(ends).tolist()
        if first - last < 0.2 * (top - last):
            remarks.append(
                f"start {start} (sigma {float(new[0]):.4g}) leaves this sampler almost nothing to do before it ends at"
                f" sigma {float(plain[-1]):.4g}: with two experts choose motion low or medium"
            )
    return remarks
