"""One call of a pipeline at a time: a second thread waits, and a call from within a call is refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["calling", "waiting"]


@dataclass
class _Turn:
    lock: Any = field(default_factory=threading.RLock)
    called: bool = False


_TURNS: WeakKeyDictionary[Any, _Turn] = WeakKeyDictionary()  # apart from the pipeline, which is copied and pickled
_GUARD = threading.Lock()


@contextmanager
def waiting(pipe: Any) -> Iterator[_Turn]:
    """Wait until no other thread calls `pipe`, and keep others out in the body."""
    with _GUARD:
        turn = _TURNS.setdefault(pipe, _Turn())
    with turn.lock:
        yield turn


@contextmanager
def calling(pipe: Any) -> Iterator[None]:
    """Hold `pipe` for one call in the body. ValueError if this thread is calling it already."""
    with waiting(pipe) as turn:
        if turn.called:
            raise ValueError(
                f"this {type(pipe).__name__} is being called, and something in that call, such as a callback, calls it"
                " again: make a second pipeline of the same parts (from_pipe) for that."
            )
        turn.called = True
        try:
            yield
        finally:
            turn.called = False
