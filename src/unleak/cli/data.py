"""`unleak data check`: what training would make of a set of videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.options import (
    BASIC,
    MEMORY,
    Group,
    argument,
    command,
    number,
    option,
    to_size,
    whole,
)
from unleak.cli.studies import Spoken, listening
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.data.sources import VideoEntry
    from unleak.measure.survey import Looked

data = typer.Typer(no_args_is_help=True, help="Look at videos before training on them.")


@data.callback()
def _data() -> None:
    """Look at videos before training on them."""


@dataclass(frozen=True)
class Videos(Group):
    """The videos that are looked at."""

    panel = BASIC

    path: Annotated[Path, argument("DIR", "Folder of videos, or a .csv or .jsonl that lists them.")]
    videos: Annotated[Path | None, option("DIR", "The folder of WebVid's videos, if DIR is WebVid's table.")] = None
    num_frames: Annotated[int, option("N", "Frames of a clip.", parse=whole(2, 10_000))] = 16
    fps: Annotated[float, option("HZ", "Frame rate of a clip.", parse=number(0.1, 240))] = 3.0
    size: Annotated[Any, option("WxH", "Width and height of a clip.", parse=to_size)] = "512x320"
    min_motion: Annotated[
        float,
        option("PX", "Drop what moves less: px per pair of frames at 800x450.", parse=number(0, 100_000)),
    ] = 0.0
    allow_outside: Annotated[bool, option("", "A list may lead out of its folder.", "--allow-outside")] = False
    workers: Annotated[int | None, option("N", "Processes that decode.", parse=whole(1, 256), panel=MEMORY)] = None
    seconds_per_video: Annotated[float, option("S", "Time to read a clip before its video is dropped.")] = 60.0

    def found(self) -> "tuple[list[VideoEntry], int]":
        """Return the videos, and how many more a table names that are not there."""
        from unleak.data.sources import folder_videos, listed_videos, webvid_videos

        if self.videos is not None:
            return webvid_videos(self.path, self.videos)
        if self.path.is_dir():
            return folder_videos(self.path), 0
        if self.path.suffix.lower() not in (".csv", ".jsonl"):
            raise ValueError(f"{self.path}: give a folder of videos, or a .csv or .jsonl that lists them")
        return listed_videos(self.path, allow_outside=self.allow_outside), 0


@dataclass(frozen=True)
class ListOutput(Spoken):
    """Where the list of the videos that are kept goes."""

    write: Annotated[Path | None, option("KEEP.csv", "Write the videos that are kept, to train on.")] = None
    overwrite: Annotated[bool, option("", "Replace KEEP.csv if it exists.", "--overwrite")] = False

    def __post_init__(self) -> None:
        if self.write is None:
            return
        if self.write.suffix != ".csv":
            raise ValueError(f"--write {self.write}: give a name that ends in .csv")
        if self.write.exists() and not self.overwrite:
            raise ValueError(f"{self.write} exists; choose another name, or replace it with --overwrite")


@data.command()
@command
def check(asked: Videos, output: ListOutput) -> None:
    """Report which videos would be used, which not and why, and how much they move.

    Videos that stand still teach a model to stand still. The clip at the beginning of each video is looked at.
    """
    from unleak.data.decode_worker import ClipRequest, Decoding, default_workers
    from unleak.measure.survey import survey, write_list

    terminal, (width, height) = output.terminal(), asked.size
    entries, missing = asked.found()
    with listening(terminal) as listener:
        done = 0
        listener.progress(done, len(entries), "videos")

        def on_video() -> None:
            nonlocal done
            done += 1
            listener.progress(done, len(entries), "videos")

        looked = survey(
            entries,
            ClipRequest(Path(), asked.num_frames, asked.fps, (height, width)),
            decoding=Decoding(workers=asked.workers or default_workers(), seconds=asked.seconds_per_video),
            min_motion=asked.min_motion,
            listed=output.write is not None,
            on_video=on_video,
        )
    for one in looked:
        if one.reason is not None:
            terminal.note(one.text)
    if output.write is not None:
        kept = [one for one in looked if one.reason is None]
        if not kept:
            raise ValueError(f"nothing to write to {output.write}: none of {len(looked)} videos is kept")
        write_list(output.write, kept)
    _report(looked, missing, output.write, terminal)


def _report(looked: "list[Looked]", missing: int, written: Path | None, terminal: Terminal) -> None:
    """Print how many videos are kept and how much they move, for people and for programs."""
    from unleak.measure.survey import histogram

    kept = sum(one.reason is None for one in looked)
    terminal.line(f"{kept} of {len(looked)} videos would be used" + (f", {missing} are missing" * bool(missing)))
    scores = [one.motion for one in looked if one.motion is not None]
    for low, high, count in histogram(scores):
        bar = "#" * round(40 * count / max(1, len(scores)))
        terminal.line(f"  motion {low:>4g} to {high:>4g}  {count:6d}  {bar}".rstrip())
    terminal.json(
        {
            "used": kept,
            "missing": missing,
            "dropped": [{"video": str(one.entry.path), "reason": one.reason} for one in looked if one.reason],
            "motion": {str(one.entry.path): one.motion for one in looked if one.motion is not None},
            "histogram": [{"from": low, "to": high, "videos": count} for low, high, count in histogram(scores)],
            "written": None if written is None else str(written),
        }
    )


__all__ = ["data"]
