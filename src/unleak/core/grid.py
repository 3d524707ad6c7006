"""Schedules that start lower: rescale a grid of noise levels, or drop the part of it above the start.

Both functions are pure and take the grid as a sampler lists it: falling noise levels, the last of which may be 0 (the
end of sampling). They know nothing of a model: give them the levels in the coordinate in which the sampler spaces its
steps evenly, or name the coordinate:

- `Flow(shift)`: rectified flow, even in the time before the shift (Wan, Hunyuan, LTX)
- `Karras(rho)`: variance exploding, even in sigma^(1 / rho) (EDM, SVD)
- `Table(sigmas)`: variance preserving, even in the index of the table of training levels
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

__all__ = [
    "Coordinate",
    "Exponential",
    "Flow",
    "Karras",
    "Plain",
    "Table",
    "evenly",
    "few_steps",
    "rescale",
    "spaced_from",
    "truncate",
]

Grid = Float64[np.ndarray, " n"]
FEW_STEPS = 8
"""Schedules of at most this many steps belong to distilled models, which know the levels of that schedule only."""


class Coordinate(ABC):
    """A time in which a sampler spaces its steps evenly: a rising function of sigma."""

    @abstractmethod
    def time(self, sigmas: Grid) -> Grid:
        """The time of each sigma."""

    @abstractmethod
    def sigma(self, times: Grid) -> Grid:
        """The sigma of each time, the inverse of `time`."""


@dataclass(frozen=True)
class Plain(Coordinate):
    """Even in sigma itself."""

    def time(self, sigmas: Grid) -> Grid:
        """Return sigma."""
        return sigmas

    def sigma(self, times: Grid) -> Grid:
        """Return the time."""
        return times


@dataclass(frozen=True)
class Flow(Coordinate):
    """Even in the rectified-flow time t before the shift: sigma = s t / (1 + (s - 1) t) (arXiv 2403.03206, Eq. 23)."""

    shift: float | int = 1.0

    def time(self, sigmas: Grid) -> Grid:
        """Undo the shift."""
        return sigmas / (self.shift - (self.shift - 1) * sigmas)

    def sigma(self, times: Grid) -> Grid:
        """Apply the shift."""
        return self.shift * times / (1 + (self.shift - 1) * times)


@dataclass(frozen=True)
class Karras(Coordinate):
    """Even in sigma^(1 / rho) (arXiv 2206.00364, Eq. 5)."""

    rho: float | int = 7.0

    def time(self, sigmas: Grid) -> Grid:
        """sigma^(1 / rho)."""
        return sigmas ** (1 / self.rho)

    def sigma(self, times: Grid) -> Grid:
        """time^rho."""
        return times**self.rho


@dataclass(frozen=True)
class Exponential(Coordinate):
    """Even in ln sigma; there is no time at which sigma is 0."""

    def time(self, sigmas: Grid) -> Grid:
        """Return ln sigma."""
        return _log(sigmas)

    def sigma(self, times: Grid) -> Grid:
        """Return e^time."""
        return np.exp(times)


@dataclass(frozen=True, eq=False)
class Table(Coordinate):
    """Even in the index of a table of training levels, which rises; between two of them ln sigma is linear."""

    sigmas: Grid

    def time(self, sigmas: Grid) -> Grid:
        """The index of each sigma, fractional between two levels; sigma 0 is one index below the first level."""
        index = np.interp(_log(sigmas), _log(self.sigmas), np.arange(len(self.sigmas), dtype=float))
        return np.where(sigmas > 0, index, -1.0)

    def sigma(self, times: Grid) -> Grid:
        """The level at each index."""
        levels = np.exp(np.interp(times, np.arange(len(self.sigmas)), _log(self.sigmas)))
        return np.where(times > -1, levels, 0.0)


def rescale(
    sigmas: Sequence[float] | Grid,
    level: float | int,
    coordinate: Coordinate | None = None,
    *,
    anchor: float | int | None = None,
) -> Grid:
    """Return as many levels as `sigmas`, spaced likewise, from `level` down.

    The map is affine in the coordinate's time (None: `Plain()`) and holds the level `anchor` in place: None the last
    level above 0, so that the end stays as it is; 0 scales a rectified-flow grid as a whole. A final 0 stays 0.
    ValueError if `level` does not lie within the grid.
    """
    grid, steps = _checked(sigmas, level)
    held = grid[steps - 1] if anchor is None else anchor
    return np.append(spaced_from(grid[:steps], level, coordinate or Plain(), held), grid[steps:])


def spaced_from(levels: Grid, start: float | int, coordinate: Coordinate, anchor: float | int) -> Grid:
    """Return `levels`, which are above 0, moved so that the first is `start`; a level at `anchor` stays in place."""
    begin, end = coordinate.time(np.array([float(start), float(anchor)])).tolist()
    moved = coordinate.sigma(evenly(coordinate.time(levels), begin, end))
    moved[0] = start
    if anchor == levels[-1] and len(levels) > 1:
        moved[-1] = anchor  # not rounded
    return moved


def evenly(times: Grid, start: float | int, anchor: float | int, *, end_kept: bool = False) -> Grid:
    """Return `times` stretched about `anchor` so that the first is `start`; `end_kept`: the last is not rounded."""
    if len(times) == 1:
        return np.array([float(start)])
    stretched = anchor + (times - anchor) * ((start - anchor) / (times[0] - anchor))
    stretched[0] = start
    if end_kept:
        stretched[-1] = times[-1]
    return stretched


def truncate(
    sigmas: Sequence[float] | Grid, level: float | int, *, snap: bool | None = None
) -> Float64[np.ndarray, " m"]:
    """Return the levels of `sigmas` below `level`, with `level` in front of them.

    snap: start at the highest level of the grid at or below `level` instead, so that no level appears which the grid
        lacks. None: where the grid has at most 8 steps, as those of distilled models.

    Never more steps than `sigmas` has. ValueError if `level` does not lie within the grid.
    """
    grid, steps = _checked(sigmas, level)
    if snap is None:
        snap = few_steps(steps)
    if snap:
        below = np.flatnonzero(_at_or_below(grid[:steps], level))
        return grid[below[0] if len(below) else steps - 1 :]
    below = np.flatnonzero(_at_or_below(grid, level) & ~np.isclose(grid, level, rtol=1e-6, atol=0))
    return np.append([float(level)], grid[below[0] :] if len(below) else grid[:0])


def few_steps(steps: int) -> bool:
    """Whether a schedule has so few steps that its model is distilled for exactly those levels."""
    return steps <= FEW_STEPS


def _checked(sigmas: Sequence[float] | Grid, level: float | int) -> tuple[Grid, int]:
    """The grid as an array and its number of steps, each of which begins above 0."""
    grid = np.asarray(sigmas, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 1 or not np.isfinite(grid).all() or (np.diff(grid) >= 0).any() or grid[-1] < 0:
        raise ValueError(
            f"a grid is a list of falling noise levels, the last at least 0, not {list(grid.ravel()[:4])}."
        )
    steps = int((grid > 0).sum())
    lowest = float(grid[steps - 1]) if steps else 0.0
    top = float(grid[0])
    if not steps or not (lowest <= level <= top or np.isclose(level, [lowest, top], rtol=1e-6, atol=0).any()):
        raise ValueError(f"the start {level:g} does not lie within the grid, which runs from {top:g} to {lowest:g}.")
    return grid, steps


def _at_or_below(grid: Grid, level: float | int) -> np.ndarray:
    return (grid <= level) | np.isclose(grid, level, rtol=1e-6, atol=0)


def _log(values: Grid) -> Grid:
    with np.errstate(divide="ignore"):
        return np.log(values)
