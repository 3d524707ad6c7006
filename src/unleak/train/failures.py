"""Videos that could not be read while training: named once, counted, kept, and too many of them end the run."""

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from unleak.data.atomic import written_whole
from unleak.data.image import MediaError
from unleak.train.config import Recipe, SyntheticData

__all__ = ["Failures"]


class Failures:
    """The reasons, each of them once; in the file `failures.json` of the output folder, over all runs of a recipe.

    Raises MediaError where they are more than the share `max_failures` of the videos. Each process counts its own.
    """

    def __init__(self, recipe: Recipe, clips: Any, console: Console, *, main: bool):
        self.data, self.console, self.main = recipe.data, console, main
        self.file = recipe.output / "failures.json"
        before: dict[Any, str] = getattr(clips, "failures", {})
        self.videos = len(before) + len(getattr(clips, "entries", ()))
        if missing := getattr(clips, "missing", 0):
            console.print(f"{missing} videos of the table are not in the folder")
        self.reasons: dict[str, None] = dict.fromkeys(before.values())
        for reason in self.reasons:
            console.print(f"skipped: {reason}")
        if main and self.file.exists():
            self.reasons |= dict.fromkeys(json.loads(self.file.read_text()))

    def add(self, reasons: Iterable[str]) -> None:
        """Take in the reasons of a batch."""
        new = [reason for reason in dict.fromkeys(reasons) if reason not in self.reasons]
        if not new:
            return
        self.reasons |= dict.fromkeys(new)
        for reason in new:
            self.console.print(f"another clip in the place of: {reason}")
        if self.main:
            with written_whole(self.file) as temporary:
                temporary.write_text(json.dumps(list(self.reasons), indent=1))
        data = self.data
        if not isinstance(data, SyntheticData) and len(self.reasons) > data.max_failures * self.videos:
            raise MediaError(
                f"{data.path}: {len(self.reasons)} of {self.videos} videos cannot be used, more than the share "
                f"max_failures = {data.max_failures:g} allows; the last: {new[-1]}; all of them: {self.file}"
            )
