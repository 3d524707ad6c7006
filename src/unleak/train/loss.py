"""The loss of a step and the distribution of sigma, as functions of draws that are made elsewhere."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.families.view import Levels, View


@dataclass(frozen=True)
class SigmaDistribution:
    """ln sigma ~ N(p_mean, p_std^2), and with probability `uniform_share` uniform over the logs of `uniform_range`."""

    p_mean: float
    p_std: float
    uniform_share: float = 0.0
    uniform_range: tuple[float, float] = (10.0, 700.0)

    def sample(self, generator: torch.Generator) -> Float[Tensor, ""]:
        """Draw one sigma. Three random numbers are drawn whichever branch is taken."""
        normal = torch.randn((), generator=generator)
        branch, uniform = torch.rand(2, generator=generator)
        low, high = map(math.log, self.uniform_range)
        log_sigma = torch.where(
            branch < self.uniform_share, low + (high - low) * uniform, self.p_mean + self.p_std * normal
        )
        return log_sigma.exp()

    def cdf(self, sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Return P(a draw <= sigma), exactly: the quantile of sigma, uniform on [0, 1] over training."""
        log_sigma = sigma.log()
        low, high = map(math.log, self.uniform_range)
        normal = torch.special.ndtr((log_sigma - self.p_mean) / self.p_std)
        uniform = ((log_sigma - low) / (high - low)).clamp(0, 1)
        return ((1 - self.uniform_share) * normal + self.uniform_share * uniform).clamp(0, 1)


def edm_weight(sigma: Float[Tensor, "b"], sigma_data: float = 1.0) -> Float[Tensor, "b"]:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def squared_error(
    view: View,
    x_0: Float[Tensor, "b c f h w"],
    eps: Float[Tensor, "b c f h w"],
    levels: Levels,
    condition: Any,
) -> Float[Tensor, "b"]:
    """Return |F(x_t, level) - target|^2 of each clip, the mean over its elements, in what the network predicts.

    F and its target are x_0 (eq. 2 of Karras et al. 2022), eps, v or the velocity eps - x_0, as the family has it. A
    first frame that is the image itself does not count.
    """
    prediction = view.predict(view.add_noise(x_0, eps, levels), levels, condition)
    error = (prediction.float() - view.target(x_0, eps, levels)).square()
    return (error[:, :, 1:] if view.first_frame_is_clean else error).flatten(1).mean(1)
