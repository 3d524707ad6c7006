"""Distances between distributions from samples: of velocities, and of whole clips."""

from dataclasses import dataclass

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

    `bandwidth` None: the median distance within `y`, the reference. Samples of one distribution scatter around 0: see
    `kernel_distance`.
    """
    _check(x, y)
    within = _distances(y, y)
    bandwidth = _bandwidth(within) if bandwidth is None else bandwidth
    if not bandwidth > 0:
        raise ValueError(f"bandwidth {bandwidth:g}: give a distance above 0")
    kernel = [_gaussian(distances, bandwidth) for distances in (_distances(x, x), within, _distances(x, y))]
    return _off_diagonal(kernel[0]) + _off_diagonal(kernel[1]) - 2 * float(kernel[2].mean())


@dataclass(frozen=True)
class KernelDistance:
    """`mmd2` of a sample to real ones, and the range that holds it in 95 % of the cases where both are real."""

    value: float
    floor: tuple[float, float]


def kernel_distance(
    x: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"], *, rng: np.random.Generator, splits: int = 400
) -> KernelDistance:
    """`mmd2(x, real)` beside its real-against-real floor: `splits` random halves of `real` against the other halves.

    The halves are smaller than the samples they speak for (if `x` has half the size of `real` or more), so the floor is
    wide rather than narrow. Four real samples or more.
    """
    value = mmd2(x, real)
    n = len(real)
    if n < 4:
        raise ValueError(f"{n} real samples have no two halves of two or more; give at least four")
    within = _distances(real, real)
    kernel, found = _gaussian(within, _bandwidth(within)), []
    for _ in range(splits):
        one, two = np.array_split(rng.permutation(n), 2)
        own = sum(_off_diagonal(kernel[np.ix_(half, half)]) for half in (one, two))
        found.append(own - 2 * float(kernel[np.ix_(one, two)].mean()))
    low, high = np.quantile(found, [0.025, 0.975])
    return KernelDistance(value, (float(low), float(high)))


def _bandwidth(within: np.ndarray) -> float:
    median = float(np.median(within[~np.eye(len(within), dtype=bool)]))
    if not median > 0:
        raise ValueError("the reference samples are all equal: no bandwidth follows from them, give one")
    return median


def _gaussian(distances: np.ndarray, bandwidth: float) -> np.ndarray:
    return np.exp(-0.5 * np.square(distances / bandwidth))


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
