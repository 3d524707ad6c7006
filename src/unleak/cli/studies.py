"""What the commands of studies share: how they speak, and what they say while they work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from unleak.cli.options import OUTPUT, Group, option
from unleak.cli.terminal import Terminal
from unleak.study.listener import Listener

__all__ = ["Spoken", "listening", "notes_of"]


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
    """Notes and failures as lines; progress as a bar, or as lines where there is no terminal."""

    def __init__(self, terminal: Terminal, bar: Any):
        self._bar, self._tasks = bar, dict[str, Any]()
        self.note, self.failure = terminal.note, terminal.failure  # type: ignore[method-assign]

    def progress(self, done: int, total: int, what: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
            if getattr(self._bar, "in_lines", False):
                self.note(f"{total} {what}")
        self._bar.update(self._tasks[what], completed=done, total=total)


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
