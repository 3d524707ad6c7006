"""Distances between distributions from samples: of velocities, and of whole clips."""

import numpy as np
from jaxtyping import Float


def energy_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased (Szekely and Rizzo 2013, eq. 1.3), in the units of the samples.

    0 only for equal distributions; samples of equal ones scatter around 0 to both sides. Two samples or more of each.
    """
    _check(x, y)
    return float(2 * _distances(x, y).mean() - _off_diagonal(_distances(x, x)) - _off_diagonal(_distances(y, y)))


def energy_distance_to_law(
    x: Float[np.ndarray, "n d"], law: Float[np.ndarray, "m d"], weights: Float[np.ndarray, " m"]
) -> float:
    """The same against a discrete law that is known exactly: values `law` with probabilities `weights`."""
    _check(x, law)
    if not np.isclose(weights.sum(), 1) or (weights < 0).any():
        raise ValueError(f"the weights of a law are probabilities that sum to 1, not to {weights.sum():g}")
    cross = (_distances(x, law) @ weights).mean()
    return float(2 * cross - _off_diagonal(_distances(x, x)) - weights @ _distances(law, law) @ weights)


def mmd2(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, bandwidth: float | None = None) -> float:
    """Unbiased squared kernel distance (MMD) of two samples (Gretton et al. 2012, eq. 3), Gaussian kernel.

    `bandwidth` None: the median distance within `y`, the reference. Samples of one distribution scatter around 0, so
    print it beside that of two halves of the reference.
    """
    _check(x, y)
    within = _distances(y, y)
    if bandwidth is None:
        bandwidth = float(np.median(within[~np.eye(len(y), dtype=bool)]))
    if not bandwidth > 0:
        raise ValueError("the reference samples are all equal: no bandwidth follows from them, give one")

    def kernel(distances: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * np.square(distances / bandwidth))

    return float(
        _off_diagonal(kernel(_distances(x, x))) + _off_diagonal(kernel(within)) - 2 * kernel(_distances(x, y)).mean()
    )


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squared = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.sqrt(np.maximum(squared, 0))


def _off_diagonal(square: np.ndarray) -> float:
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"two samples [n, d] of two or more each are compared, not {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("the samples hold values that are not finite: failures have to be counted, not averaged")
