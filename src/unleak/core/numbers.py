"""Tell numbers from what Python also lets pass for one."""

import sys
from numbers import Real
from typing import Any

__all__ = ["within"]


_LARGEST = sys.float_info.max


def within(value: Any, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    """Return whether `value` is a finite number from `low` to `high`; bools, texts, tensors and arrays are none.

    The scalars of NumPy are numbers.
    """
    return isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high
