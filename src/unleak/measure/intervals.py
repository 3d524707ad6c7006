"""Means over videos with bootstrap intervals; videos that belong together are drawn together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["FEWEST", "Mean", "mean_of"]

FEWEST = 4
"""Fewest groups that get an interval: the bootstrap's intervals of fewer are far too narrow."""


@dataclass(frozen=True)
class Mean:
    """A mean over `groups` independent groups and its 95 % interval, infinite for fewer than `FEWEST` groups."""

    value: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" + (f" ({self.low:.2f} to {self.high:.2f})" if np.isfinite(self.low) else "")

    @property
    def record(self) -> dict[str, Any]:
        """Return the same as plain values; bounds that are not known are None."""
        return {name: None if value in (np.inf, -np.inf) else value for name, value in asdict(self).items()}


def mean_of(groups: Mapping[Any, Sequence[float]] | Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Mean:
    """Return the mean, in which each group has the same weight, and its interval.

    Videos of one clip or photo are a group, because they are not independent. The interval is the percentile bootstrap
    over the groups (Efron 1979); the same values give the same interval. With fewer than `FEWEST` groups the bounds are
    infinite. Raises ValueError for no values, and for values that are not finite.
    """
    values = groups.values() if isinstance(groups, Mapping) else [[value] for value in groups]
    means = np.array([np.mean(some) for some in values if len(some)], dtype=np.float64)
    if not len(means) or not np.isfinite(means).all():
        raise ValueError(f"a mean needs one finite value or more, not {means.tolist()}")
    value = float(means.mean())
    if len(means) < FEWEST:
        return Mean(value, -np.inf, np.inf, len(means))
    drawn = np.random.default_rng(seed).integers(len(means), size=(resamples, len(means)))
    low, high = np.quantile(means[drawn].mean(1), [0.025, 0.975])
    return Mean(value, float(low), float(high), len(means))
