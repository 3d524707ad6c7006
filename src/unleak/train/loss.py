"""The EDM loss, the distribution of sigma, and the noise of the condition, as functions of draws made elsewhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SigmaDistribution:
    """ln sigma ~ N(p_mean, p_std^2), and with probability `uniform_share` uniform over the logs of `uniform_range`."""

    p_mean: float
    p_std: float
    uniform_share: float = 0.0
    uniform_range: tuple[float, float] = (10.0, 700.0)

    def sample(self, generator: torch.Generator) -> Float[Tensor, ""]:
        """One sigma. The three numbers drawn do not depend on which branch is taken."""
        normal = torch.randn((), generator=generator)
        branch, uniform = torch.rand(2, generator=generator)
        low, high = map(math.log, self.uniform_range)
        log_sigma = torch.where(
            branch < self.uniform_share, low + (high - low) * uniform, self.p_mean + self.p_std * normal
        )
        return log_sigma.exp()

    def cdf(self, sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """P(a draw <= sigma), exact: the quantile of sigma, uniform on [0, 1] over training."""
        log_sigma = sigma.log()
        low, high = map(math.log, self.uniform_range)
        normal = torch.special.ndtr((log_sigma - self.p_mean) / self.p_std)
        uniform = ((log_sigma - low) / (high - low)).clamp(0, 1)
        return ((1 - self.uniform_share) * normal + self.uniform_share * uniform).clamp(0, 1)


def edm_weight(sigma: Float[Tensor, "b"], sigma_data: float = 1.0) -> Float[Tensor, "b"]:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def edm_loss(
    predict_clean: Callable[[Tensor, Tensor], Tensor],
    x_0: Float[Tensor, "b c f h w"],
    eps: Float[Tensor, "b c f h w"],
    sigma: Float[Tensor, "b"],
    *,
    sigma_data: float = 1.0,
) -> Float[Tensor, "b"]:
    """lambda(sigma) |D(x_0 + sigma eps; sigma) - x_0|^2, one value per clip, the mean over its elements (eq. 2)."""
    x_t = x_0 + sigma[:, None, None, None, None] * eps
    error = (predict_clean(x_t, sigma).float() - x_0).square().flatten(1).mean(1)
    return edm_weight(sigma, sigma_data) * error


def prediction_loss(
    denoiser: Any,
    x_0: Float[Tensor, "b c f h w"],
    eps: Float[Tensor, "b c f h w"],
    t: Int[Tensor, "b"],
    condition: Any,
) -> Float[Tensor, "b"]:
    """|F(x_t, t) - target|^2 with the network's own target, eps or v; one value per clip, the mean over its elements.

    `denoiser` is the view of DynamiCrafter or VideoCrafter1, `t` indices of its schedule.
    """
    prediction = denoiser.predict(denoiser.add_noise(x_0, eps, t), t, condition)
    return (prediction.float() - denoiser.target(x_0, eps, t)).square().flatten(1).mean(1)
