"""The videos of an evaluation, each with the photo, the prompt and the motion score that belong to it by name."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unleak.data.folder import find_images
from unleak.data.image import MediaError
from unleak.data.lists import LIST_SUFFIXES, read_list
from unleak.data.reading import parse_json, read_text

__all__ = ["Item", "check_two_frames", "match_images", "match_prompts", "match_targets"]


@dataclass(frozen=True)
class Item:
    """A video to measure."""

    path: Path
    reference: bool = False
    """Whether it is a real video that the others are compared with."""
    image: Path | None = None
    prompt: str | None = None
    target_motion: float | None = None

    @property
    def key(self) -> str:
        """Return a name for this video as it is now: a file that changes gets another. OSError if it is not there."""
        about = [self.reference, str(self.path), _stamp(self.path), str(self.image), self.prompt, self.target_motion]
        if self.image is not None:
            about.append(_stamp(self.image))
        return hashlib.sha256(json.dumps(about).encode(errors="surrogateescape")).hexdigest()[:16]


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def match_images(folder: Path | None, videos: Sequence[Path]) -> list[Path | None]:
    """Return the photo in `folder` that has the name of each video; without a folder None for each.

    Raises ValueError if a video has no photo, and if two photos have the same name except for their endings.
    """
    if folder is None:
        return [None] * len(videos)
    by_stem: dict[str, Path] = {}
    stems = {path.stem for path in videos}
    for photo in find_images([folder]):
        other = by_stem.setdefault(photo.stem, photo)
        if other != photo and photo.stem in stems:
            raise ValueError(
                f"--images {folder}: {other.name} and {photo.name} are both called {photo.stem}: nobody knows which one"
                " the video was made of; keep one of them there"
            )
    missing = [path for path in videos if path.stem not in by_stem]
    if missing:
        raise ValueError(f"--images {folder}: no photo called {missing[0].stem} for {missing[0]}; name them alike")
    return [by_stem[path.stem] for path in videos]


def match_prompts(file: Path | None, stems: Sequence[str]) -> list[str] | None:
    """Return the prompt of each video: from a list by its id, from JSON {name: prompt}, or from lines in order.

    Raises ValueError if a video has no prompt, or if the file cannot be read.
    """
    if file is None:
        return None
    if file.suffix.lower() in LIST_SUFFIXES and file.is_file():
        by_name = {entry.name or entry.photo.stem: entry.prompt for entry in read_list(file)}
        if missing := next((stem for stem in stems if by_name.get(stem) is None), None):
            raise ValueError(f"--prompts {file}: no prompt for the video {missing}; its id is its name")
        return [by_name[stem] or "" for stem in stems]
    found = _json_by_stem("prompts", file, stems)
    if found is None:
        # Only line breaks part lines: str.splitlines would also break a prompt at U+2028 and its kin.
        found = read_text(file).replace("\r\n", "\n").rstrip("\n").split("\n")
        if len(found) != len(stems):
            raise ValueError(f"--prompts {file}: {len(found)} lines for {len(stems)} videos; give a line for each")
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"--prompts {file}: prompts are texts")
    return found


def match_targets(given: str | float | int | Path | None, stems: Sequence[str]) -> list[float | None]:
    """Return the motion score that was asked of each video: one number for all, or a JSON file {name: score}."""
    if given is None:
        return [None] * len(stems)
    try:
        values: list[Any] | None = [float(given)] * len(stems)  # type: ignore[arg-type]  # a path is no number either
    except (TypeError, ValueError):
        if not Path(given).is_file():  # type: ignore[arg-type]
            raise ValueError(f"--target-motion {given}: give a motion score, or a JSON file {{name: score}}") from None
        values = _json_by_stem("target-motion", Path(given), stems)  # type: ignore[arg-type]
    if values is None or not all(type(one) in (int, float) and 0 <= one < 1e9 for one in values):
        raise ValueError(f"--target-motion {given}: motion scores are numbers of 0 or more")
    return [float(one) for one in values]


def _json_by_stem(option: str, file: Path, stems: Sequence[str]) -> list[Any] | None:
    """Return the values of a JSON object by name; None for a text that is no JSON object."""
    try:
        text = read_text(file)
    except MediaError as error:
        raise ValueError(f"--{option} {error}") from error
    except OSError as error:
        raise ValueError(f"--{option} {file}: cannot be read ({error.strerror}); give a file") from error
    try:
        found = parse_json(text, dict, str(file))
    except MediaError:
        return None
    if missing := next((stem for stem in stems if stem not in found), None):
        raise ValueError(f"--{option} {file}: nothing for the video {missing}; give each its own")
    return [found[stem] for stem in stems]


def check_two_frames(path: Path, count: int) -> None:
    """Raise MediaError for a video that is too short for any metric."""
    if count < 2:
        raise MediaError(f"{path}: {count} frame; metrics need two or more")
