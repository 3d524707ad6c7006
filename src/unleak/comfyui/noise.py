"""Sets the initial noise of a ComfyUI sampler through the noise argument; the latent image is never changed.

ComfyUI computes x from noise n and the latent image by `noise_scaling`, which is affine in n: x = A n + B. To begin
from x_M, the sampler gets n' = (x_M - B) / A.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.comfyui.sampling import Sampling
from unleak.core.initial import AnalyticInit, InitialNoise, Standard, Unit
from unleak.core.moments import LatentMoments
from unleak.core.process import RF, Level

__all__ = ["INITS", "initial_noise", "parse_init"]

INITS = ("unit", "standard", "analytic")


def parse_init(name: str, moments: LatentMoments | None, sampling: Sampling) -> InitialNoise:
    """Return the initial noise of that name; ValueError for an unknown name, or `analytic` without moments.

    `standard` is the factor with which a pipeline of this process begins: 1 for rectified flow, else that of `unit`.
    """
    match name:
        case "unit":
            return Unit()
        case "standard":
            return Standard(1.0) if isinstance(sampling.process, RF) else Unit()
        case "analytic" if moments is not None:
            return AnalyticInit(moments)
        case "analytic":
            raise ValueError(
                "init analytic needs moments of this model's latents: choose a file of models/unleak (the node unleak"
                " Moments makes one), or init unit."
            )
    raise ValueError(f"init {name!r} is unknown: choose {', '.join(INITS)}.")


def initial_noise(
    noise: Float[Tensor, "b ..."],
    init: InitialNoise,
    sampling: Sampling,
    *,
    model_sampling: Any,
    sigma: Float[Tensor, ""],
    full: bool,
    latent: Float[Tensor, "b ..."],
    mask: Float[Tensor, "..."] | None = None,
    frames_first: bool = False,
) -> Float[Tensor, "b ..."]:
    """Return the noise from which ComfyUI makes x_M, distributed by `init` at `sigma`, from standard normal `noise`.

    noise: [b c f h w]; [f c h w] if `frames_first` (SVD); of any shape for an `init` that is the same everywhere.
    full: whether the sampler takes `sigma` for pure noise (its `max_denoise`).
    mask: 1 where the sampler is to make something; elsewhere the noise stays as it is.
    """
    level = sampling.level(float(sigma))
    one = torch.ones([1] * noise.ndim, dtype=noise.dtype, device=noise.device)
    scale = model_sampling.noise_scaling(sigma, one, torch.zeros_like(one), full).item()
    offset = model_sampling.noise_scaling(sigma, torch.zeros_like(noise), latent, full)
    if not isinstance(init, AnalyticInit):
        gain = math.sqrt(float(init.variance(level))) / sampling.signal(level)
        if math.isclose(gain, scale, rel_tol=1e-6) and not offset.any():
            return noise  # bit for bit what the sampler does by itself
    wanted = (_sample(noise, init, level, frames_first) / sampling.signal(level) - offset) / scale
    return wanted if mask is None else torch.where(mask >= 1, wanted, noise)


def _sample(
    noise: Float[Tensor, "b ..."], init: InitialNoise, level: Level, frames_first: bool
) -> Float[Tensor, "b ..."]:
    if not isinstance(init, AnalyticInit):
        return init.sample(noise.reshape(len(noise), 1, 1, 1, -1), level).reshape(noise.shape)
    if noise.ndim == 5:
        return init.sample(noise, level)
    if noise.ndim == 4 and frames_first:
        return init.sample(noise.transpose(0, 1)[None], level)[0].transpose(0, 1)
    raise ValueError(
        f"init analytic needs the latents of one video; these have shape {list(noise.shape)} (a batch of images, or"
        " sound and video packed together): choose init unit."
    )
