"""The share of the steps in which a strategy acts."""

__all__ = ["Interval", "acts", "checked_interval"]

Interval = tuple[float | int, float | int]


def checked_interval(strategy: str, interval: Interval | float | int) -> Interval:
    """Return (first, last) share of the steps; a single number s means (0, s). ValueError outside 0 to 1."""
    first, last = (0.0, interval) if isinstance(interval, float | int) else interval
    if not 0 <= first <= last <= 1:
        raise ValueError(f"{strategy} interval {interval} is not (first, last) share of the steps, within 0 to 1.")
    return first, last


def acts(interval: Interval, progress: float) -> bool:
    """Return whether a step at `progress` (0 the first step, 1 the last) lies in the interval, both ends included."""
    return interval[0] <= progress <= interval[1]
