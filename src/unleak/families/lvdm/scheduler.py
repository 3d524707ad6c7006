"""DDIM (arXiv 2010.02502) for LVDM's descendants: zero terminal SNR, dynamic rescale, true step gaps."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from torch import Tensor

from unleak.attach.schedulers.adapter import Limits, Nodes, evenly
from unleak.attach.schedulers.vp import VPTimesteps
from unleak.core.process import Level
from unleak.families.lvdm.schedule import SPACINGS, TRAILING, betas_of, clean_scales, ddim_grid

__all__ = ["LVDMScheduler"]

PREDICTIONS = ("epsilon", "v_prediction")


class _Starts(VPTimesteps):
    """How unleak makes an `LVDMScheduler` start lower."""

    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """The scheduler's own grid below the start; where that would begin lower, the plain one shrunk to fit."""
        del arguments
        start = round(first.timesteps.item()) + 1
        if scheduler.config.timestep_spacing == TRAILING:
            timesteps = np.array(scheduler.grid(len(plain), start), float)
        else:
            end = plain.timesteps[-1]
            timesteps = np.round(evenly(plain.timesteps, start - 1, end, end_kept=True))
            _check_distinct(timesteps.tolist(), start, highest=start - 1)
        return Nodes(scheduler.edm_sigmas[timesteps.astype(int)], timesteps)

    def move(self, scheduler: Any, level: Level, mode: Any, limits: Limits, arguments: dict[str, Any]) -> None:
        """As published, a start changes the initial noise and leaves the schedule as it is."""
        if not scheduler.config.reference:
            super().move(scheduler, level, mode, limits, arguments)


@dataclass(frozen=True)
class Step:
    """From x = alpha scale x_0 + sigma eps to x' = alpha_next scale_next x_0 + direction eps + spread z."""

    alpha: float
    sigma: float
    scale: float
    alpha_next: float
    scale_next: float
    direction: float
    spread: float


class LVDMScheduler(SchedulerMixin, ConfigMixin):
    """DDIM as DynamiCrafter and VideoCrafter1 sample: x_t = alpha_t s_t x_0 + sigma_t eps.

    s_t, the dynamic rescale, falls linearly from 1 to `base_scale` over the first `turning_step` timesteps and stays
    there (None: 1 throughout). Every step goes from a timestep of the grid to the next one, whatever the gap.

    prediction_type: `v_prediction` (DynamiCrafter) or `epsilon` (VideoCrafter1).
    rescale_betas_zero_snr: whether the last timestep is pure noise; with `v_prediction` only.
    timestep_spacing: see `ddim_grid`.
    set_alpha_to_one: whether the last step ends at alpha 1. As published it ends at timestep 0, whose alpha is less.
    set_scale_to_one: whether the last step takes the rescale off completely (True, VideoCrafter1), or leaves the factor
        of the last timestep on the latents (False, DynamiCrafter as published: 0.986 at 50 steps).
    reference: VideoCrafter1 as published: a start given by unleak changes the initial noise only, the schedule
        remains whole; and `uniform` spacing may bring more steps than asked for.
    """

    order = 1
    init_noise_sigma = 1.0
    unleak_adapter = _Starts()

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        prediction_type: str = "v_prediction",
        rescale_betas_zero_snr: bool = True,
        timestep_spacing: str = "uniform_trailing",
        base_scale: float | None = 0.7,
        turning_step: int = 400,
        set_alpha_to_one: bool = False,  # noqa: ARG002  the configuration keeps it, and the two below
        set_scale_to_one: bool = False,  # noqa: ARG002
        reference: bool = False,  # noqa: ARG002
    ) -> None:
        if prediction_type not in PREDICTIONS:
            raise ValueError(f"prediction_type {prediction_type!r} is unknown: give {' or '.join(PREDICTIONS)}.")
        if timestep_spacing not in SPACINGS:
            raise ValueError(f"timestep_spacing {timestep_spacing!r} is unknown: give one of {', '.join(SPACINGS)}.")
        if rescale_betas_zero_snr and prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr: eps says nothing of x_0 where x_t is pure noise; give prediction_type"
                " v_prediction, or rescale_betas_zero_snr=False."
            )
        betas = betas_of(beta_start, beta_end, num_train_timesteps, zero_terminal_snr=rescale_betas_zero_snr)
        self.alphas_cumprod = torch.from_numpy(np.cumprod(1 - betas)).float()
        scales = np.ones(num_train_timesteps)
        if base_scale is not None:
            scales = clean_scales(base_scale, turning_step, num_train_timesteps)[:num_train_timesteps]
        self.scales = torch.from_numpy(scales).float()
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps).flip(0)

    def grid(self, num_inference_steps: int, start: int | None = None) -> list[int]:
        """Timesteps over the first `start` of the training's (None: all), noisiest first; see `ddim_grid`."""
        total: int = self.config.num_train_timesteps
        start = total if start is None else start
        if not 1 <= start <= total:
            raise ValueError(f"start {start} lies outside the training's timesteps: give 1 to {total}.")
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps {num_inference_steps}: give 1 or more.")
        config = self.config
        grid = ddim_grid(config.timestep_spacing, num_inference_steps, start, reference=config.reference)
        _check_distinct(grid, start, highest=total - 1 if config.reference else start - 1)
        return grid

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None, *, start: int | None = None
    ) -> None:
        """Lay `num_inference_steps` steps over the first `start` training timesteps (None: over all).

        Raises ValueError for more steps than there are timesteps.
        """
        self.timesteps = torch.tensor(self.grid(num_inference_steps, start), device=device)
        self.num_inference_steps = len(self.timesteps)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as it is."""
        del timestep
        return sample

    @property
    def edm_sigmas(self) -> Float[np.ndarray, " T"]:
        """sigma / alpha of every training timestep."""
        alphas_cumprod = self.alphas_cumprod.double().numpy()
        with np.errstate(divide="ignore"):
            sigmas: Float[np.ndarray, " T"] = np.sqrt(1 / alphas_cumprod - 1)
        return sigmas

    def add_noise(self, x_0: Tensor, eps: Tensor, timesteps: Int[Tensor, " b"]) -> Tensor:
        """x_t = alpha s x_0 + sigma eps, what the network is trained on."""
        alpha, sigma, scale = self._at(timesteps, x_0)
        return alpha * scale * x_0 + sigma * eps

    def velocity(self, x_0: Tensor, eps: Tensor, timesteps: Int[Tensor, " b"]) -> Tensor:
        """v = alpha eps - sigma s x_0."""
        alpha, sigma, scale = self._at(timesteps, x_0)
        return alpha * eps - sigma * scale * x_0

    def predict_clean(self, model_output: Tensor, sample: Tensor, timesteps: Int[Tensor, " b"]) -> Tensor:
        """x_0 from what the network says of x_t, the rescale taken off."""
        alpha, sigma, scale = self._at(timesteps, sample)
        if self.config.prediction_type == "epsilon":
            return (sample - sigma * model_output) / (alpha * scale)
        return (alpha * sample - sigma * model_output) / scale

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """From x_t at `timestep` of the grid to the next timestep (arXiv 2010.02502, Eq. 12 and 16).

        `eta` 0 is deterministic, 1 as noisy as DDPM; `variance_noise` is used in place of a draw. Computed in float32
        at least; `prev_sample` has the dtype of `sample`, `pred_original_sample` is x_0 without the rescale.
        """
        step = self.step_from(int(timestep), eta)
        x, m = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (sample, model_output))
        if self.config.prediction_type == "epsilon":
            x_0, eps = (x - step.sigma * m) / (step.alpha * step.scale), m
        else:
            x_0, eps = (step.alpha * x - step.sigma * m) / step.scale, step.alpha * m + step.sigma * x
        following = step.alpha_next * step.scale_next * x_0 + step.direction * eps
        if step.spread:
            if variance_noise is None:
                variance_noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            following = following + step.spread * variance_noise
        following = following.to(sample.dtype)
        if not return_dict:
            return following, x_0
        return DDIMSchedulerOutput(prev_sample=following, pred_original_sample=x_0)

    def step_from(self, timestep: int, eta: float = 0.0) -> Step:
        """What `step` does at this timestep of the grid."""
        alpha, sigma, scale = self._level(timestep)
        below = [t for t in self.timesteps.tolist() if t < timestep]
        alpha_next, scale_next = (self._level(max(below)) if below else self._end(timestep))[::2]
        # At zero terminal SNR both roots are of numbers that are 0 up to rounding.
        ratio = (1 - alpha_next**2) / sigma**2 * (1 - (alpha / alpha_next) ** 2)
        spread = eta * math.sqrt(max(ratio, 0.0))
        direction = math.sqrt(max(1 - alpha_next**2 - spread**2, 0.0))
        return Step(alpha, sigma, scale, alpha_next, scale_next, direction, spread)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def _level(self, timestep: int) -> tuple[float, float, float]:
        """alpha, sigma and the rescale."""
        alpha_squared = self.alphas_cumprod[timestep].item()
        return math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared), self.scales[timestep].item()

    def _end(self, timestep: int) -> tuple[float, float, float]:
        """Where the step from the last timestep goes."""
        alpha, sigma, scale = (1.0, 0.0, 1.0) if self.config.set_alpha_to_one else self._level(0)
        return alpha, sigma, scale if self.config.set_scale_to_one else self._level(timestep)[2]

    def _at(self, timesteps: Int[Tensor, " b"], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma and the rescale of every sample of a batch."""
        shape = (-1, *[1] * (like.ndim - 1))
        alpha_squared = self.alphas_cumprod.to(like.device)[timesteps].view(shape)
        scale = self.scales.to(like.device)[timesteps].view(shape)
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt(), scale


def _check_distinct(grid: list[Any], start: int, *, highest: int) -> None:
    if grid[0] > highest or grid[-1] < 0 or any(a <= b for a, b in pairwise(grid)):
        raise ValueError(
            f"only {start} timesteps lie at or below this start, too few for {len(grid)} steps: ask for fewer steps, or"
            " for a higher start."
        )
