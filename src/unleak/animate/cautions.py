"""What unleak warns of while a video is made, kept for the person who asked for it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from unleak.attach.plan import UnleakWarning

__all__ = ["cautions_of"]


@contextmanager
def cautions_of() -> Iterator[list[str]]:
    """Give a list that holds, after the body, every warning of unleak in it, each once; other warnings are dropped."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UnleakWarning)
        yield found
    found += dict.fromkeys(str(warning.message) for warning in caught)
