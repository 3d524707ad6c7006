"""What an ideal model would do where the truth is one of finitely many clips: the yardstick for every real one.

The oracle is privileged: it knows the whole scene and the law of its motion, a model knows one frame. It is exact, so
what it loses at a noise level nobody can keep, and what a model loses beyond that is the model's.
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
    """P(clip k | x_t) for x_t = x_0 + sigma eps, x_0 one of `clips` with `probabilities`: Bayes' rule, exactly."""
    distance = (rearrange(x_t, "b c f h w -> b 1 c f h w") - clips).square().sum((2, 3, 4, 5))
    return (probabilities.log() - distance / (2 * sigma[:, None] ** 2)).softmax(1)


def posterior_mean(clips: Float[Tensor, "b k c f h w"], probabilities: Float[Tensor, " k"]) -> Predict:
    """E[x_0 | x_t] over `clips`: the prediction that no model can beat in mean square."""

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
    """One prediction of clips noised to sigma.

    Its motion falls with sigma for an ideal model too (the mean over motions that are no longer told apart is nearly
    still): only the difference from `posterior_mean` speaks of leakage.
    """
    return predict(x_0 + sigma * eps, x_0.new_full((len(x_0),), sigma))


def restart(
    predict: Predict, x_0: Float[Tensor, "b c f h w"], sigmas: Float[Tensor, " n"], eps: Float[Tensor, "b c f h w"]
) -> Float[Tensor, "b c f h w"]:
    """Clips noised to `sigmas[0]` and sampled from there: motion that was visible at that level has to come back."""
    return euler(predict, x_0 + sigmas[0] * eps, sigmas)
