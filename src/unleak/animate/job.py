"""A photo, the file that its video goes to, and what is its own: a prompt, a mask, a seed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unleak.animate.record import Photo
from unleak.animate.sample import shape_fault
from unleak.data.atomic import written_whole
from unleak.data.files import open_regular
from unleak.data.image import MediaError
from unleak.data.mask import load_mask
from unleak.data.reading import Record, read_json
from unleak.data.video import write_video

__all__ = ["Job", "WhereItExists", "placed"]

_LONGEST_STEM = 230  # bytes

WhereItExists = Literal["number", "overwrite", "skip"]


@dataclass(frozen=True)
class Job:
    """A photo and the video to be made of it."""

    photo: Path
    video: Path
    prompt: str | None = None
    """Its own, if photos have different ones."""
    mask: Path | None = None
    seed: int | None = None
    """Added to that of all."""

    @property
    def record(self) -> Path:
        """Return the file for the record of the video."""
        return self.video.with_suffix(".json")

    def read(self) -> Photo:
        """Read the photo. Raises MediaError if it or its mask cannot be used, or if its video would replace it."""
        if self.video.exists() and self.video.samefile(self.photo):
            raise MediaError(f"{self.photo}: its video would replace it; choose another --out or --format")
        photo, mask = Photo.read(self.photo), self.read_mask()
        if mask is not None and (reason := shape_fault(mask, photo.image)) is not None:
            raise MediaError(f"{self.mask}: {reason}")
        return photo

    def read_mask(self) -> Image.Image | None:
        """Read the mask, if there is one; MediaError if it cannot be read."""
        return None if self.mask is None else load_mask(self.mask)

    def write(self, frames: UInt8[np.ndarray, "f h w 3"], record: Mapping[str, Any], *, fps: float) -> None:
        """Write the video and its record, both or neither."""
        with written_whole(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            write_video(frames, self.video, fps=fps)


def placed(jobs: Sequence[Job], where: WhereItExists) -> tuple[list[Job], list[Job]]:
    """Give every job a file of its own; return the jobs to do and those that are done already.

    The second photo of a name goes to `NAME-2`, the third to `NAME-3`, and a name that is too long for a file is cut.
    For a video that exists, `where` says what happens: number: it is kept, and the new one gets the next free number.
    skip: if it is of the same photo, by the hash in its record, the job is done; else as with number. overwrite: the
    new video replaces it. Nothing else is ever replaced: no input of any job, no folder, no record of something else.
    """
    inputs = {path.resolve() for job in jobs for path in (job.photo, job.mask) if path is not None}
    todo, done, names = list[Job](), list[Job](), set[Path]()
    for job in jobs:
        stem = _short(job.video.stem)
        for number in count(1):
            name = f"{stem}-{number}" if number > 1 else stem
            one = replace(job, video=job.video.with_name(f"{name}{job.video.suffix}"))
            if one.video in names or one.video.resolve() in inputs or one.record.resolve() in inputs:
                continue
            if where == "skip" and one.video.is_file() and _is_of_its_photo(one):
                done.append(one)
            elif not _is_taken(one) or (where == "overwrite" and _is_replaceable(one)):
                todo.append(one)
            else:
                continue
            names.add(one.video)
            break
    return todo, done


def _short(stem: str) -> str:
    """Cut a name so that `NAME-2.json` is one that file systems take (255 bytes); what is cut still tells it apart."""
    name = os.fsencode(stem)
    if len(name) <= _LONGEST_STEM:
        return stem
    kept = name[: _LONGEST_STEM - 9].decode("utf-8", "ignore")
    return f"{kept}-{sha256(name).hexdigest()[:8]}"


def _is_taken(job: Job) -> bool:
    return os.path.lexists(job.video) or os.path.lexists(job.record)


class _MadeOf(Record):
    """What the record of a video says of its photo."""

    sha256: str


class _Made(Record):
    """What the record of a video says."""

    video: str
    photo: _MadeOf


def _made(job: Job) -> _Made | None:
    try:
        return read_json(job.record, _Made)
    except (ValueError, OSError):
        return None


def _is_of_its_photo(job: Job) -> bool:
    """Return whether the video that exists was made of this photo as it is now."""
    made = _made(job)
    if made is None or Path(made.video).name != job.video.name:
        return False
    try:
        with open_regular(job.photo) as file:
            return file_digest(file, "sha256").hexdigest() == made.photo.sha256
    except (MediaError, OSError):  # told when its turn comes
        return False


def _is_replaceable(job: Job) -> bool:
    """Return whether the files that exist are a video, and its own record or none, or one whose video is gone."""
    if job.video.is_dir() or job.record.is_dir():
        return False
    if not job.record.exists():
        return True
    made = _made(job)
    if made is None:
        return False
    video = job.video.with_name(Path(made.video).name)
    return video == job.video or not video.exists()
