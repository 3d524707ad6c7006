"""The noise schedule that LVDM's descendants are trained on, as pure functions of its few numbers."""

import math

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["betas_of", "buffers", "clean_scales", "ddim_grid"]

UNIFORM, TRAILING, QUADRATIC = SPACINGS = ("uniform", "uniform_trailing", "quad")


def betas_of(start: float, end: float, timesteps: int, *, zero_terminal_snr: bool = False) -> Float64[np.ndarray, " T"]:
    """Betas whose roots are evenly spaced, on request rescaled to zero terminal SNR (arXiv 2305.08891, Alg. 1)."""
    betas: Float64[np.ndarray, " T"] = np.linspace(math.sqrt(start), math.sqrt(end), timesteps) ** 2
    if not zero_terminal_snr:
        return betas
    alpha = np.sqrt(np.cumprod(1 - betas))
    alphas_cumprod = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
    rescaled: Float64[np.ndarray, " T"] = 1 - np.append(alphas_cumprod[0], alphas_cumprod[1:] / alphas_cumprod[:-1])
    return rescaled


def clean_scales(base_scale: float, turning_step: int, timesteps: int) -> Float64[np.ndarray, " n"]:
    """What clean latents are multiplied by at each timestep: linear from 1 to `base_scale`, constant from there on.

    Has `turning_step + timesteps` entries, as in the published checkpoints, of which the first `timesteps` are used.
    """
    return np.append(np.linspace(1.0, base_scale, turning_step), np.full(timesteps, base_scale))


def ddim_grid(spacing: str, steps: int, start: int, *, reference: bool = False) -> list[int]:
    """Timesteps (indices) of a schedule over the first `start` of the training's, noisiest first, always `steps` many.

    `uniform` begins a step below the start and ends at 1, `uniform_trailing` begins at start - 1 exactly, `quad` is
    dense near the clean end, from 0.8 start on. `reference`: as published, where `uniform` may bring more steps than
    asked for. (`uniform_trailing` as published yields one more, -1, for some numbers, the noisiest level again: never
    here.)
    """
    if reference and spacing == UNIFORM:
        grid = np.arange(0, start, max(start // steps, 1)) + 1
    elif spacing == UNIFORM:
        grid = np.arange(steps) * start // steps + 1
    elif spacing == TRAILING:
        # The published arithmetic, rounding included, less the extra entry that it sometimes yields.
        grid = np.round(np.arange(start, 0, -start / steps)).astype(int)[:steps][::-1] - 1
    else:
        assert spacing == QUADRATIC
        grid = (np.linspace(0, math.sqrt(0.8 * start), steps) ** 2).astype(int) + 1
        if not reference:  # as published, timesteps near the clean end may be visited twice
            grid = np.maximum(grid, np.arange(steps) + 1)
    return [int(t) for t in grid[::-1]]


def buffers(
    *,
    beta_start: float,
    beta_end: float,
    num_train_timesteps: int,
    rescale_betas_zero_snr: bool,
    prediction_type: str,
    base_scale: float | None,
    turning_step: int,
) -> dict[str, Tensor]:
    """The schedule as published checkpoints carry it, float32, by their names (Ho et al., arXiv 2006.11239).

    None of it is trained: it follows from these numbers, the keywords of `LVDMScheduler`.
    """
    betas = betas_of(beta_start, beta_end, num_train_timesteps, zero_terminal_snr=rescale_betas_zero_snr)
    alphas = 1 - betas
    alphas_cumprod = np.cumprod(alphas)
    before = np.append(1.0, alphas_cumprod[:-1])
    variance = betas * (1 - before) / (1 - alphas_cumprod)
    if prediction_type == "v_prediction":  # unused there, and infinite at zero terminal SNR
        reciprocal = reciprocal_less_1 = np.zeros_like(alphas_cumprod)
    else:
        reciprocal, reciprocal_less_1 = np.sqrt(1 / alphas_cumprod), np.sqrt(1 / alphas_cumprod - 1)
    values = {
        "betas": betas,
        "alphas_cumprod": alphas_cumprod,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(alphas_cumprod),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - alphas_cumprod),
        "log_one_minus_alphas_cumprod": np.log(1 - alphas_cumprod),
        "sqrt_recip_alphas_cumprod": reciprocal,
        "sqrt_recipm1_alphas_cumprod": reciprocal_less_1,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - alphas_cumprod),
        "posterior_mean_coef2": (1 - before) * np.sqrt(alphas) / (1 - alphas_cumprod),
    }
    if base_scale is not None:
        values["scale_arr"] = clean_scales(base_scale, turning_step, num_train_timesteps)
    return {name: torch.from_numpy(value).float() for name, value in values.items()}
