"""The Frechet distance of two samples of features, and the inception score: what FVD and IS compute."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Estimate", "frechet_distance", "frechet_of_moments", "inception_score", "with_error"]


@dataclass(frozen=True)
class Estimate:
    """A number of a whole sample, and its standard error by the bootstrap."""

    value: float
    error: float
    samples: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval by the normal approximation: the bootstrap's percentiles are biased upwards here."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error


def frechet_of_moments(
    mean_a: Float[np.ndarray, " d"],
    cov_a: Float[np.ndarray, "d d"],
    mean_b: Float[np.ndarray, " d"],
    cov_b: Float[np.ndarray, "d d"],
) -> float:
    """Return |m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 (Dowson and Landau 1982, eq. 4).

    It is exact for Gaussians. Covariances may be singular: the eigenvalues are those of symmetric matrices, and what
    rounding leaves below 0 counts as 0.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ cov_b @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Return the distance of Gaussians with the means and the (unbiased) covariances of two samples, two or more each.

    With fewer samples than dimensions the covariances are singular and the distance is biased upwards: compare only
    values from the same number of samples. Raises ValueError for other shapes and values that are not finite.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"two samples [n, d] of two or more each are compared, not {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("the features hold values that are not finite")
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    # tr (A B)^1/2 of A = a' a and B = b' b is the sum of the singular values of a b': no root of a singular matrix, and
    # no d x d matrix where there are few samples.
    if min(len(x), len(y)) <= x.shape[1]:
        cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        return float(np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross)
    return frechet_of_moments(x.mean(0), a.T @ a, y.mean(0), b.T @ b)


def inception_score(probabilities: Float[np.ndarray, "n k"]) -> float:
    """Return exp of the mean KL of each video's classes from their mean, in one split (Salimans et al. 2016, 4)."""
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(f"class probabilities [n, k] of one video or more are needed, not {probabilities.shape}")
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise ValueError("the classifier's outputs are no probabilities: they have to sum to 1")
    p = np.maximum(probabilities.astype(np.float64), 1e-12)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))


def with_error(
    of: Callable[..., float], *samples: Float[np.ndarray, "_ d"], resamples: int = 50, seed: int = 0
) -> Estimate:
    """Return `of(*samples)` and the standard error that resampling each sample gives."""
    rng = np.random.default_rng(seed)
    values = [of(*(one[rng.integers(len(one), size=len(one))] for one in samples)) for _ in range(resamples)]
    return Estimate(of(*samples), float(np.std(values, ddof=1)), len(samples[0]))
