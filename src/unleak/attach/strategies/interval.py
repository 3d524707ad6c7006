"""The share of the steps in which a strategy acts."""

from unleak.core.numbers import within

__all__ = ["Interval", "acts", "checked_interval"]

Interval = tuple[float | int, float | int]


def checked_interval(strategy: str, interval: Interval | float | int) -> Interval:
    """Return (first, last) share of the steps; a single number s means (0, s). ValueError outside 0 to 1."""
    both = tuple(interval) if isinstance(interval, tuple | list) else (0.0, interval)
    if len(both) != 2 or not all(within(one, 0, 1) for one in both) or both[0] > both[1]:
        raise ValueError(f"{strategy} interval {interval!r} is not (first, last) share of the steps, within 0 to 1.")
    return both


def acts(interval: Interval, progress: float) -> bool:
    """Return whether a step at `progress` (0 the first step, 1 the last) lies in the interval, both ends included."""
    return interval[0] <= progress <= interval[1]
