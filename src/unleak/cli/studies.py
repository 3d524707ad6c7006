"""What the commands of studies share: how they speak, and what they say while they work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from unleak.cli.options import OUTPUT, Group, option
from unleak.cli.terminal import Terminal
from unleak.study.listener import Listener

__all__ = ["Spoken", "listening", "notes_of"]

_EVERY = 15.0  # seconds between lines where there is no terminal to draw a bar on


@dataclass(frozen=True)
class Spoken(Group):
    """How the command speaks."""

    panel = OUTPUT

    quiet: Annotated[bool, option("", "Print results and failures only.", "--quiet", "-q")] = False
    as_json: Annotated[bool, option("", "Print one JSON object.", "--json")] = False

    def terminal(self, *, quiet: bool = False) -> Terminal:
        """Return where the command's words go."""
        return Terminal(self.quiet or quiet, self.as_json)


class _Shown(Listener):
    """Notes and failures as lines; progress as a bar, or as a line now and then."""

    def __init__(self, terminal: Terminal, bar: Any):
        self._terminal, self._bar = terminal, bar
        self._tasks: dict[str, Any] = {}
        self._began = self._said = time.monotonic()

    def note(self, text: str) -> None:
        self._terminal.note(text)

    def failure(self, text: str) -> None:
        self._terminal.failure(text)

    def progress(self, done: int, total: int, what: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
            self._began = time.monotonic()
        if not self._bar.disable:
            self._bar.update(self._tasks[what], completed=done, total=total)
            return
        now = time.monotonic()
        if done == 0:
            self._terminal.note(f"{total} {what}")
            self._said = now
        elif now - self._said >= _EVERY and done < total:
            left = (now - self._began) / done * (total - done)
            self._terminal.note(f"{done} of {total} {what}, about {_duration(left)} left")
            self._said = now


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Notes(Listener):
    def __init__(self, terminal: Terminal):
        self.note, self.failure = terminal.note, terminal.failure  # type: ignore[method-assign]


def notes_of(terminal: Terminal) -> Listener:
    """Return a listener that prints notes and failures, without progress."""
    return _Notes(terminal)


@contextmanager
def listening(terminal: Terminal) -> Iterator[Listener]:
    """Give a listener that speaks through `terminal` until the block ends."""
    with terminal.progress() as bar:
        yield _Shown(terminal, bar)
