"""Name the videos that cannot be read while training, each once, and end the run if there are too many."""

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from unleak.data.atomic import written_whole
from unleak.data.image import MediaError
from unleak.data.reading import read_json
from unleak.train.config import Recipe, SyntheticData
from unleak.train.data import Dataset

__all__ = ["Failures"]


class Failures:
    """Keeps the reasons by video in `failures.json` of the output folder, over all runs of a recipe.

    Raises MediaError once more than the share `max_failures` of the videos cannot be read. Each process counts its own.
    """

    def __init__(self, recipe: Recipe, clips: Dataset, console: Console, *, main: bool):
        self.data, self.console, self.main = recipe.data, console, main
        self.file = recipe.output / "failures.json"
        before = {str(path): reason for path, reason in clips.failures.items()}
        self.videos = len(before) + len(clips.entries)
        if missing := clips.missing:
            console.print(f"{missing} videos of the table are not in the folder")
        self.reasons: dict[str, str] = before
        for reason in before.values():
            console.print(f"skipped: {reason}")
        if main and self.file.exists():
            self.reasons |= _read(self.file)

    def add(self, failures: Iterable[tuple[str, str]]) -> None:
        """Take in the videos of a batch that could not be read, and why."""
        new = {video: reason for video, reason in failures if video not in self.reasons}
        if not new:
            return
        self.reasons |= new
        for reason in new.values():
            self.console.print(f"another clip in the place of: {reason}")
        if self.main:
            with written_whole(self.file) as temporary:
                temporary.write_text(json.dumps(self.reasons, indent=1))
        data = self.data
        if not isinstance(data, SyntheticData) and len(self.reasons) > data.max_failures * self.videos:
            raise MediaError(
                f"{data.path}: {len(self.reasons)} of {self.videos} videos cannot be used, more than the share "
                f"max_failures = {data.max_failures:g} allows; the last: {reason}; all of them: {self.file}"
            )


def _read(file: Path) -> dict[str, str]:
    try:
        return read_json(file, dict[str, str])
    except ValueError as error:
        raise ValueError(f"{file} is damaged: it should pair videos with reasons; delete it") from error
