"""Tell numbers from what Python also lets pass for one."""

import sys
from numbers import Real
from typing import Any

__all__ = ["is_number", "within"]


_LARGEST = sys.float_info.max


def is_number(value: Any) -> bool:
    """Return whether `value` is a real number, Python's or NumPy's; a bool, a text, a tensor or an array is not."""
    return not isinstance(value, bool) and isinstance(value, Real)


def within(value: Any, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    """Return whether `value` is a finite number (see `is_number`) from `low` to `high`."""
    return is_number(value) and bool(low <= value <= high)
