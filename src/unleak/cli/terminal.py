"""Say what a command has to say: results on stdout, all else on stderr; only results and failures when quiet."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unleak.cli.errors import as_options, print_error
from unleak.cli.streams import printable, say


@dataclass(frozen=True)
class Terminal:
    """Say how a command speaks: `quiet` drops notes and progress; with `as_json` the result is one JSON object.

    With either, the libraries below show no progress bars.
    """

    quiet: bool = False
    as_json: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.quiet or self.as_json:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read by huggingface_hub when it is imported
            if "huggingface_hub" in sys.modules:
                from huggingface_hub.utils import disable_progress_bars

                disable_progress_bars()

    def note(self, text: str) -> None:
        """Print something worth knowing, for a person."""
        if not self.quiet:
            say(printable(text), sys.stderr)

    def detail(self, text: str) -> None:
        """Print something that only a person who asked for details wants to know."""
        if self.verbose:
            self.note(text)

    def table(self, text: str) -> None:
        """Print a note of several lines."""
        for line in text.splitlines():
            self.note(line)

    def failure(self, text: str) -> None:
        """Print what failed while the command goes on."""
        print_error(text)

    def line(self, text: str) -> None:
        """Print one line of the result for people; `json` is the same for programs."""
        if not self.as_json:
            say(printable(text), sys.stdout)

    def json(self, values: dict[str, Any]) -> None:
        """Print the whole result for programs."""
        if self.as_json:
            say(json.dumps(values, indent=2), sys.stdout)

    @contextmanager
    def cautions(self) -> Iterator[None]:
        """Print each thing that unleak warns of in the body, once, after it."""
        from unleak.animate.cautions import cautions_of

        with cautions_of() as found:
            yield
        for text in found:
            self.note(as_options(text))

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """Show a `rich.progress.Progress` on stderr until the block ends.

        Where stderr is no terminal (a file, a pipe), it writes lines instead; nothing if quiet.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Description(TextColumn):
            def render(self, task: Any) -> Text:
                return Text(printable(task.description))

        console = Console(stderr=True)
        silent = self.quiet or not console.is_terminal
        columns = (
            Description(""),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        kind = Progress if self.quiet or console.is_terminal else _in_lines(self)
        with kind(*columns, console=console, transient=True, disable=silent) as progress:
            yield progress


_EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal."""


def _in_lines(terminal: Terminal) -> Any:
    """Return the class of a progress that writes lines for logs: when loading begins, and from time to time."""
    from rich.progress import Progress

    class Lines(Progress):
        in_lines = True
        told = began = time.monotonic()

        def add_task(
            self,
            description: str,
            start: bool = True,
            total: float | None = 100.0,
            completed: int = 0,
            visible: bool = True,
            **fields: Any,
        ) -> Any:
            if total is None:  # how long it takes is not known: say at once that it has begun
                terminal.note(f"{description} ...")
            self.told = self.began = time.monotonic()
            return super().add_task(description, start, total, completed, visible, **fields)

        def update(self, task_id: Any, **changes: Any) -> None:
            super().update(task_id, **changes)
            task, now = next(task for task in self.tasks if task.id == task_id), time.monotonic()
            if task.total and now - self.told >= _EVERY and 0 < task.completed < task.total:
                left = (now - self.began) / task.completed * (task.total - task.completed)
                terminal.note(f"{task.description}: {task.completed:g} of {task.total:g}, about {duration(left)} left")
                self.told = now

    return Lines


def duration(seconds: float) -> str:
    """Say how long something takes."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
