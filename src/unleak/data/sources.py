"""Videos in bulk, each with what is seen in it: a folder, a list, WebVid's table."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unleak.data.folder import find_videos
from unleak.data.image import MediaError
from unleak.data.video import VIDEO_SUFFIXES

__all__ = ["VideoEntry", "folder_videos", "listed_videos", "webvid_videos"]

_PATH, _CAPTION = ("path", "video", "file", "file_name"), ("caption", "text", "prompt", "name")
_LONGEST_CAPTION = 10_000  # characters; a field that never ends is a broken file


@dataclass(frozen=True)
class VideoEntry:
    """A video, its caption, and its length in seconds where a list says it."""

    path: Path
    caption: str = ""
    duration: float | None = None


def folder_videos(folder: str | Path) -> list[VideoEntry]:
    """The videos in a folder and below it, by name; the caption of NAME.mp4 is what NAME.txt beside it says."""
    entries = []
    for path in find_videos([folder]):
        text = path.with_suffix(".txt")
        caption = _text(text).strip() if text.is_file() else ""
        entries.append(VideoEntry(path, " ".join(caption.split())))
    return entries


def listed_videos(path: str | Path, *, allow_outside: bool = False) -> list[VideoEntry]:
    """The videos of a .csv with a header, or of a .jsonl: `path` (or video, file, file_name), `caption` (or text,
    prompt, name) and, if known, `duration` in seconds; further columns do not matter.

    Paths are relative to the list's folder and have to stay in it, links followed, unless `allow_outside`. Whether the
    files are there shows when they are read. Raises MediaError, in one line that names the line of the list.
    """
    path = Path(path)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    folder = path.parent
    inside = _Inside(folder)
    entries = []
    for origin, row in rows:
        name = _first(row, _PATH, origin)
        if not name:
            raise MediaError(f"{origin}: no video; give it as {', '.join(_PATH[:-1])} or {_PATH[-1]}")
        video = folder / name
        if not allow_outside and not inside(video):
            raise MediaError(f"{origin}: {name} is outside the list's folder; give allow_outside if you trust the list")
        entries.append(VideoEntry(video, _first(row, _CAPTION, origin) or "", _seconds(row.get("duration"))))
    if not entries:
        raise MediaError(f"{path}: no videos in it; give a line for each")
    return entries


def webvid_videos(path: str | Path, videos: str | Path) -> tuple[list[VideoEntry], int]:
    """Of WebVid's table (videoid, contentUrl, duration, page_dir, name) the videos that are under the folder `videos`,
    as PAGE_DIR/ID.mp4 or ID.mp4, and how many are not there. Other sets in the same form will do.

    The folder is listed once, not looked at for each of millions of rows. Links to folders are not followed.
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
    for origin, row in _csv_rows(Path(path)):
        identity, page = (str(row.get(name) or "").strip() for name in ("videoid", "page_dir"))
        if not identity:
            raise MediaError(f"{origin}: no videoid; a table has videoid, contentUrl, duration, page_dir, name")
        # Looked up, never joined: no row can name a file that the folder does not have.
        place = there.get(f"{page}/{identity}" if page else identity) or there.get(identity)
        if place is None:
            missing += 1
            continue
        entries.append(VideoEntry(place, _first(row, ("name", "caption"), origin) or "", _seconds(row.get("duration"))))
    if not entries:
        raise MediaError(f"{root}: none of the {missing} videos of {path}, neither as PAGE_DIR/ID.mp4 nor as ID.mp4")
    return entries, missing


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


def _first(row: Mapping[str, Any], names: Iterable[str], origin: str) -> str | None:
    for name in names:
        if (value := row.get(name)) not in (None, ""):
            if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST_CAPTION:
                raise MediaError(f"{origin}: {name} is no text of a line but {str(value)[:40]!r}")
            return value.strip()
    return None


def _seconds(value: Any) -> float | None:
    """WebVid writes PT00H00M10S, others a number."""
    text = str(value or "")
    if text.startswith("PT"):
        total, number = 0.0, ""
        for letter in text[2:]:
            if letter in "HMS":
                total = total + float(number or 0) * {"H": 3600, "M": 60, "S": 1}[letter]
                number = ""
            elif letter.isdecimal() or letter == ".":
                number += letter
            else:
                return None
        return total or None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e7 else None


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="strict") as file:
        try:
            for number, line in enumerate(file, start=1):
                origin = f"{path}, line {number}"
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise MediaError(f'{origin}: no JSON object; give such as {{"path": "1.mp4", "caption": "rain"}}')
                yield origin, row
        except UnicodeDecodeError:
            raise MediaError(f"{path}: not a text file in UTF-8") from None


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # A file, not its lines: captions may hold line breaks, and tables have millions of rows.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            if not {*_PATH, "videoid"} & set(header):
                raise MediaError(f"{path}: no column {', '.join(_PATH[:-1])} or {_PATH[-1]} in its first line")
            for values in reader:
                origin = f"{path}, line {reader.line_num}"
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise MediaError(
                        f"{origin}: {len(values)} values for {len(header)} columns; quote texts with commas"
                    )
                yield origin, dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise MediaError(f"{path}, line {reader.line_num}: {error}") from error
        except UnicodeDecodeError:
            raise MediaError(f"{path}: not a text file in UTF-8") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")[:_LONGEST_CAPTION]
    except UnicodeDecodeError:
        raise MediaError(f"{path}: not a text file in UTF-8") from None
