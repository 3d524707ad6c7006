"""What a command says: results on stdout, all else on stderr, nothing but results and failures when quiet."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unleak.cli.errors import print_error


@dataclass(frozen=True)
class Terminal:
    """How a command speaks: `quiet` drops notes and progress; with `as_json` the result is one JSON object."""

    quiet: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.quiet:  # read by huggingface_hub when it is imported, which is after this
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

    def note(self, text: str) -> None:
        """Something worth knowing, for a person."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def failure(self, text: str) -> None:
        """Something that failed while the command goes on."""
        print_error(text)

    def line(self, text: str) -> None:
        """A piece of the result for people; `json` is the same for programs."""
        if not self.as_json:
            # A file's name may hold bytes that are no text, or letters that the terminal does not have.
            encoding = sys.stdout.encoding or "utf-8"
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    def json(self, values: dict[str, Any]) -> None:
        """The whole result for programs."""
        if self.as_json:
            print(json.dumps(values, indent=2), flush=True)

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """A `rich.progress.Progress` on stderr, gone at the end; nothing where no terminal is."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        silent = self.quiet or not console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            yield progress
