"""What an ideal model would do if the truth is one of finitely many clips: the yardstick for every real model.

The oracle is privileged: it knows the whole scene and the law of its motion, while a model knows one frame. It is
exact: what it loses at a noise level nobody can keep, and what a model loses beyond that is the model's loss.
"""

from collections.abc import Callable
from itertools import pairwise

from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

Predict = Callable[[Float[Tensor, "b c f h w"], Float[Tensor, " b"]], Float[Tensor, "b c f h w"]]
"""x_t and sigma to the expected x_0."""


def posterior(
    x_t: Float[Tensor, "b c f h w"],
    sigma: Float[Tensor, " b"],
    clips: Float[Tensor, "b k c f h w"],
    probabilities: Float[Tensor, " k"],
) -> Float[Tensor, "b k"]:
    """Return P(clip k | x_t) for x_t = x_0 + sigma eps, x_0 one of `clips`: Bayes' rule, exactly."""
    distance = (rearrange(x_t, "b c f h w -> b 1 c f h w") - clips).square().sum((2, 3, 4, 5))
    return (probabilities.log() - distance / (2 * sigma[:, None] ** 2)).softmax(1)


def posterior_mean(clips: Float[Tensor, "b k c f h w"], probabilities: Float[Tensor, " k"]) -> Predict:
    """Return the predictor E[x_0 | x_t] over `clips`, which no model can beat in mean square."""

    def predict(x_t: Tensor, sigma: Tensor) -> Tensor:
        return einsum(posterior(x_t, sigma, clips, probabilities), clips, "b k, b k c f h w -> b c f h w")

    return predict


def euler(predict: Predict, x: Float[Tensor, "b c f h w"], sigmas: Float[Tensor, " n"]) -> Float[Tensor, "b c f h w"]:
    """Follow dx / dsigma = (x - E[x_0 | x]) / sigma down `sigmas` (Karras et al. 2022, eq. 1) in Euler steps.

    The steps are those of diffusers' EulerDiscreteScheduler, so an oracle and a pipeline can start from one noise.
    """
    for sigma, below in pairwise(sigmas):
        x_0 = predict(x, sigma.expand(len(x)))
        x = x_0 + (x - x_0) * (below / sigma)
    return x


def one_step(
    predict: Predict, x_0: Float[Tensor, "b c f h w"], sigma: float, eps: Float[Tensor, "b c f h w"]
) -> Float[Tensor, "b c f h w"]:
    """Predict clips that were noised to sigma, once.

    The motion of the prediction falls with sigma for an ideal model too, because the mean over motions that can no
    longer be distinguished is nearly still: only the difference from `posterior_mean` speaks of leakage.
    """
    return predict(x_0 + sigma * eps, x_0.new_full((len(x_0),), sigma))


def restart(
    predict: Predict, x_0: Float[Tensor, "b c f h w"], sigmas: Float[Tensor, " n"], eps: Float[Tensor, "b c f h w"]
) -> Float[Tensor, "b c f h w"]:
    """Sample from clips noised to `sigmas[0]`: motion that was visible at that level has to come back."""
    return euler(predict, x_0 + sigmas[0] * eps, sigmas)
