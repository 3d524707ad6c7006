"""Find videos in bulk, each with a caption: a folder, a list, WebVid's table."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from unleak.data.files import VIDEO_SUFFIXES
from unleak.data.folder import find_videos
from unleak.data.image import MediaError
from unleak.data.reading import Place, Row, Text, json_rows, parse_values, read_text, table_rows

__all__ = ["VideoEntry", "folder_videos", "listed_videos", "webvid_videos"]

_PATH = ("path", "video", "file", "file_name")
_WEBVID = ("videoid", "contentUrl", "duration", "page_dir", "name")
_LONGEST_CAPTION = 10_000  # characters; a file that never ends is no caption


@dataclass(frozen=True)
class VideoEntry:
    """A video, its caption, and its length in seconds where a list says it."""

    path: Path
    caption: str = ""
    duration: float | None = None
    fault: str | None = None
    """Why it cannot be used, where that is known before it is opened."""


class _Video(Row):
    """A row of a list of videos."""

    path: Place | None = Field(None, validation_alias=AliasChoices(*_PATH))
    caption: Text = Field("", validation_alias=AliasChoices("caption", "text", "prompt", "name"))
    duration: Any = None


class _WebVid(Row):
    """A row of WebVid's table; names are only looked up, never joined, so no row can name a file elsewhere."""

    videoid: Text | None = None
    page: Text = Field("", validation_alias="page_dir")
    caption: Text = Field("", validation_alias=AliasChoices("name", "caption"))
    duration: Any = None


def folder_videos(folder: str | Path) -> list[VideoEntry]:
    """Find the videos in a folder and below it, by name; NAME.txt beside NAME.mp4 holds its caption.

    A video whose caption cannot be read is one with a `fault`.
    """
    entries = []
    for path in find_videos([folder]):
        text, caption, fault = path.with_suffix(".txt"), "", None
        try:
            caption = read_text(text)[:_LONGEST_CAPTION] if text.is_file() else ""
        except MediaError as error:
            fault = str(error)
        except OSError as error:
            fault = f"{text}: {error.strerror}"
        entries.append(VideoEntry(path, " ".join(caption.split()), fault=fault))
    return entries


def listed_videos(path: str | Path, *, allow_outside: bool = False) -> list[VideoEntry]:
    """Read the videos of a .csv file with a header, or of a .jsonl file.

    A row has `path` (or video, file, file_name), `caption` (or text, prompt, name) and, if known, `duration` in
    seconds; other columns do not matter. Paths are relative to the list's folder and have to stay in it, with links
    followed, unless `allow_outside`. Whether the files are there shows when they are read. Raises MediaError, in one
    line that names the line of the list.
    """
    path = Path(path)
    rows: Iterator[tuple[str, Mapping[str, Any]]]
    if path.suffix.lower() == ".csv":
        rows = table_rows(path, _PATH)
    else:
        rows = json_rows(path, '{"path": "1.mp4", "caption": "rain"}')
    folder = path.parent
    inside = _Inside(folder)
    entries = []
    for origin, values in rows:
        row = parse_values(_stripped(values), _Video, origin)
        if row.path is None:
            raise MediaError(f"{origin}: no video; give it as {', '.join(_PATH[:-1])} or {_PATH[-1]}")
        video = folder / row.path
        if not allow_outside and not inside(video):
            raise MediaError(
                f"{origin}: {row.path} is outside the list's folder; give allow_outside if you trust the list"
            )
        entries.append(VideoEntry(video, row.caption, _seconds(row.duration)))
    if not entries:
        raise MediaError(f"{path}: no videos in it; give a line for each")
    return entries


def webvid_videos(path: str | Path, videos: str | Path) -> tuple[list[VideoEntry], int]:
    """Find which videos of WebVid's table are under the folder `videos`; returns them and the number that are missing.

    The table has videoid, contentUrl, duration, page_dir and name; a video is PAGE_DIR/ID.mp4 or ID.mp4. Other sets in
    the same form will do. The folder is listed once, rather than searched for each of millions of rows. Links to
    folders are not followed.
    """
    root = Path(videos)
    if not root.is_dir():
        raise MediaError(f"{root}: no folder of videos there")
    there = dict[str, Path]()
    for folder, _, files in os.walk(root):
        for file in files:
            if os.path.splitext(file)[1].lower() in VIDEO_SUFFIXES and not file.startswith("."):
                video = Path(folder, file)
                there[str(video.relative_to(root).with_suffix(""))] = video
    entries, missing = [], 0
    for origin, values in table_rows(path, [*_PATH, "videoid"]):
        row = parse_values(_stripped(values), _WebVid, origin)
        if row.videoid is None:
            raise MediaError(f"{origin}: no videoid; a table has {', '.join(_WEBVID)}")
        place = there.get(f"{row.page}/{row.videoid}" if row.page else row.videoid) or there.get(row.videoid)
        if place is None:
            missing += 1
            continue
        entries.append(VideoEntry(place, row.caption, _seconds(row.duration)))
    if not entries:
        raise MediaError(f"{root}: none of the {missing} videos of {path}, neither as PAGE_DIR/ID.mp4 nor as ID.mp4")
    return entries, missing


def _stripped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}


class _Inside:
    """Whether a file is in a folder or below it, links followed; of a folder that is asked about often, once."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.parents: dict[Path, Path] = {}

    def __call__(self, file: Path) -> bool:
        parent = file.parent
        resolved = self.parents.setdefault(parent, parent.resolve())
        if file.name in ("", "..") or not resolved.is_relative_to(self.folder):
            return False
        return not file.is_symlink() or file.resolve().is_relative_to(self.folder)


def _seconds(value: Any) -> float | None:
    """Parse a duration in seconds: WebVid writes PT00H00M10S, others a number; None for anything else."""
    text = str(value or "")[:40]
    try:
        if match := re.fullmatch(r"PT(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?", text, re.ASCII):
            text = str(sum(float(part) * unit for part, unit in zip(match.groups("0"), (3600, 60, 1), strict=True)))
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e7 else None
