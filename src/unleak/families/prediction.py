"""From what a network predicts to the clean video, for the schedules of Stable Diffusion and its kin."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["clean_of"]


def clean_of(
    scheduler: Any,
    prediction: Float[Tensor, "b c f h w"],
    x_t: Float[Tensor, "b c f h w"],
    timestep: Int[Tensor, "b"],
) -> Float[Tensor, "b c f h w"]:
    """x_0 of x_t = alpha x_0 + sigma eps and a prediction of eps, v = alpha eps - sigma x_0, or x_0 itself.

    Which of these is in the scheduler's configuration; its schedule has alpha at each `timestep` (an index of it).
    """
    alphas_cumprod = scheduler.alphas_cumprod.to(x_t.device)[timestep].double()
    alpha, sigma = ((level**0.5).to(x_t)[:, None, None, None, None] for level in (alphas_cumprod, 1 - alphas_cumprod))
    match kind := scheduler.config.prediction_type:
        case "epsilon":
            return (x_t - sigma * prediction) / alpha
        case "v_prediction":
            return alpha * x_t - sigma * prediction
        case "sample":
            return prediction
    raise ValueError(f"prediction_type {kind!r} is unknown: choose epsilon, v_prediction or sample.")
