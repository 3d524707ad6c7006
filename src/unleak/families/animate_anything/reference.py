"""The arithmetic of the published script, for its numbers only: `reference_start=` of the pipeline's call.

It differs from ours in two ways. M becomes `num_train_timesteps` of the scheduler, which spreads the same betas over
fewer steps, so that the noise at M - 1 is not that of the model's schedule (at M = 900 its signal-to-noise ratio is
0.55 of that). And the start is the photo's latents and noise mixed in fixed shares, whatever M is.
"""

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

__all__ = ["ALPHA", "SIGMA", "reference_scheduler", "reference_start"]

ALPHA, SIGMA = (torch.tensor(share, dtype=torch.float16) for share in (0.0903, 0.9956))
"""Shares of the photo and of the noise, in the half precision that they were written in."""


def reference_scheduler(config: Any, start: int, num_inference_steps: int, device: Any = None) -> DDIMScheduler:
    """DDIM over betas spread over `start` steps, its timesteps set and none below 0. ValueError for fewer than 1."""
    if start < num_inference_steps:
        raise ValueError(
            f"reference_start={start}: give at least the number of steps, {num_inference_steps}; published: 900, 1000"
        )
    scheduler = DDIMScheduler.from_config(config, num_train_timesteps=start)
    scheduler.set_timesteps(num_inference_steps, device=device)
    scheduler.timesteps = scheduler.timesteps.clip(0, start - 1)  # rounding may add a step, at -1
    return scheduler


def reference_start(image: Tensor, noise: Tensor) -> Tensor:
    """The start: `ALPHA` of the photo's latents and `SIGMA` of the noise."""
    return ALPHA.to(noise) * image + SIGMA.to(noise) * noise
