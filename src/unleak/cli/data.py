"""`unleak data check`: what training would make of a set of videos."""

import csv
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.options import JsonOption, QuietOption, parse_size
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.data.sources import VideoEntry

data = typer.Typer(no_args_is_help=True, help="Look at videos before training on them.")

_BINS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # px per pair of frames at 800x450, doubling


@dataclass(frozen=True)
class Video:
    """What is known of one video."""

    entry: "VideoEntry"
    motion: float | None = None
    """Mean over the pairs of frames, in pixels at 800x450."""
    reason: str | None = None
    """Why it is not used."""


@data.callback()
def _data() -> None:
    """Look at videos before training on them."""


@data.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of videos, a .csv or .jsonl of them.")],
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The videos of WebVid's table, if that is what is given.")
    ] = None,
    num_frames: Annotated[int, typer.Option(min=2, max=10_000, help="Frames of a clip.")] = 16,
    fps: Annotated[float, typer.Option(min=0.1, max=240, help="Frame rate of a clip.")] = 3.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width and height of a clip.")] = "512x320",
    min_motion: Annotated[
        float, typer.Option(min=0, help="Drop what moves less: px per pair of frames at 800x450.")
    ] = 0.0,
    write: Annotated[
        Path | None, typer.Option(metavar="KEEP.csv", help="Write the videos that are kept, to train on.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that decode.")] = None,
    seconds_per_video: Annotated[float, typer.Option(help="Time to read a clip before its video is dropped.")] = 60.0,
    allow_outside: Annotated[bool, typer.Option("--allow-outside", help="A list may lead out of its folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace KEEP.csv if it exists.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Report what would be used, what not and why, and how much the videos move.

    Data that stands still teaches standing still. Of each video the clip from its beginning is looked at.
    """
    from unleak.data.decode_worker import Decoding, default_workers

    width, height = parse_size(size)
    assert width is not None
    assert height is not None
    terminal = Terminal(quiet, as_json)
    if write is not None:
        if write.suffix != ".csv":
            raise ValueError(f"--write {write}: give a name that ends in .csv")
        if write.exists() and not overwrite:
            raise ValueError(f"{write} exists; choose another name, or replace it with --overwrite")
    entries, missing = _entries(path, videos, allow_outside=allow_outside)
    decoding = Decoding(workers=workers or default_workers(), seconds=seconds_per_video)
    found = _measured(entries, num_frames, fps, (height, width), decoding, terminal)
    looked = [
        Video(video.entry, video.motion, f"moves {video.motion:.2f} px per pair of frames, less than {min_motion:g}")
        if video.motion is not None and video.motion < min_motion
        else video
        for video in found
    ]
    if write is not None:
        looked = [_listable(video) for video in looked]
    kept = [video for video in looked if video.reason is None]
    dropped = [video for video in looked if video.reason is not None]
    for video in dropped:
        terminal.note(_told(video))
    if write is not None:
        if not kept:
            raise ValueError(f"nothing to write to {write}: none of {len(looked)} videos is kept")
        _write(write, kept)
    terminal.line(f"{len(kept)} of {len(looked)} videos would be used" + (f", {missing} are missing" * bool(missing)))
    scores = [video.motion for video in looked if video.motion is not None]
    for low, high, count in _histogram(scores):
        bar = "#" * round(40 * count / max(1, len(scores)))
        terminal.line(f"  motion {low:>4g} to {high:>4g}  {count:6d}  {bar}".rstrip())
    terminal.json(
        {
            "used": len(kept),
            "missing": missing,
            "dropped": [{"video": str(video.entry.path), "reason": video.reason} for video in dropped],
            "motion": {str(video.entry.path): video.motion for video in looked if video.motion is not None},
            "histogram": [{"from": low, "to": high, "videos": count} for low, high, count in _histogram(scores)],
            "written": None if write is None else str(write),
        }
    )


def _entries(path: Path, videos: Path | None, *, allow_outside: bool) -> "tuple[list[VideoEntry], int]":
    from unleak.data.sources import folder_videos, listed_videos, webvid_videos

    if videos is not None:
        return webvid_videos(path, videos)
    if path.is_dir():
        return folder_videos(path), 0
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ValueError(f"{path}: give a folder of videos, or a .csv or .jsonl that lists them")
    return listed_videos(path, allow_outside=allow_outside), 0


def _measured(
    entries: "list[VideoEntry]", num_frames: int, fps: float, size: tuple[int, int], decoding: Any, terminal: Terminal
) -> list[Video]:
    from unleak.data.decode_worker import ClipRequest, read_clips
    from unleak.data.image import MediaError
    from unleak.measure.motion import DIS, motion_score

    flow, found = DIS(), list[Video]()
    requests = (ClipRequest(entry.path, num_frames, fps, size) for entry in entries)
    with terminal.progress() as bar:
        task = bar.add_task("videos", total=len(entries))
        for entry, outcome in zip(entries, read_clips(requests, decoding=decoding), strict=True):
            if outcome is None or isinstance(outcome, MediaError):
                found.append(Video(entry, reason=str(outcome)))
            else:
                score = motion_score(outcome.frames, flow=flow)
                found.append(Video(entry, score.value / len(score.per_pair)))
            bar.advance(task)
    return found


def _histogram(scores: list[float]) -> list[tuple[float, float, int]]:
    edges = [*_BINS, float("inf")]
    return [
        (low, high, sum(low <= score < high for score in scores))
        for low, high in pairwise(edges)
        if any(score >= low for score in scores)
    ]


def _listable(video: Video) -> Video:
    """Leave out a video whose name a list, which is UTF-8, cannot hold."""
    try:
        str(video.entry.path).encode()
    except UnicodeEncodeError:
        return video if video.reason else replace(video, reason="its name is not UTF-8, so no list holds it; rename it")
    return video


def _told(video: Video) -> str:
    reason = str(video.reason)
    return f"dropped: {reason if str(video.entry.path) in reason else f'{video.entry.path}: {reason}'}"


def _write(path: Path, kept: list[Video]) -> None:
    """A list that `data: {kind: list}` reads; paths are relative to it where they are below its folder."""
    from unleak.data.atomic import written_whole
    from unleak.data.video import video_duration

    folder = path.parent.resolve()
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "caption", "duration", "motion"])
        for video in kept:
            place = video.entry.path.resolve()
            name = place.relative_to(folder) if place.is_relative_to(folder) else place
            duration = video.entry.duration or video_duration(video.entry.path)
            rows.writerow(
                [name, video.entry.caption, "" if duration is None else f"{duration:.3f}", f"{video.motion:.3f}"]
            )


__all__ = ["data"]
