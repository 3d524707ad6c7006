"""A photo, the file that its video goes to, and what is its own: a prompt, a mask, a seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unleak.animate.call import Call
from unleak.animate.record import Photo
from unleak.animate.sample import check_mask
from unleak.data.atomic import written_whole
from unleak.data.image import MediaError
from unleak.data.mask import load_mask
from unleak.data.reading import Record, read_json
from unleak.data.video import write_video

__all__ = ["Job", "WhereItExists", "placed"]

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
        """The file for the record of the video."""
        return self.video.with_suffix(".json")

    def read(self) -> Photo:
        """Read the photo; MediaError if it cannot be read, or if its video would replace it."""
        if self.video.exists() and self.video.samefile(self.photo):
            raise MediaError(f"{self.photo}: its video would replace it; choose another --out or --format")
        return Photo.read(self.photo)

    def read_mask(self) -> Image.Image | None:
        """Read the mask, if there is one; MediaError if it cannot be read."""
        return None if self.mask is None else load_mask(self.mask)

    def check_mask(self, call: Call) -> None:
        """Raise ValueError for a mask that cannot be read, has another shape than the photo, or is not wanted."""
        try:
            photo = self.read().image
        except (MediaError, OSError):  # told when its turn comes
            photo = None
        check_mask(call, self.read_mask(), photo)

    def write(self, frames: UInt8[np.ndarray, "f h w 3"], record: Mapping[str, Any], *, fps: float) -> None:
        """Write the video and its record, both or neither."""
        with written_whole(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            write_video(frames, self.video, fps=fps)


def placed(jobs: Sequence[Job], where: WhereItExists) -> tuple[list[Job], list[Job]]:
    """Give every job a file of its own; return the jobs to do and those that are done already.

    The second photo of a name goes to `NAME-2`, the third to `NAME-3`. For a video that exists, `where` says what
    happens: number: it is kept, and the new one gets the next free number. skip: the job is done. overwrite: the new
    video replaces it. Raises ValueError where a folder, or with `skip` somebody else's record, is in the way.
    """
    todo, done, names = list[Job](), list[Job](), set[Path]()
    for job in jobs:
        video, number = job.video, 1
        while video in names or (where == "number" and _is_taken(replace(job, video=video))):
            number += 1
            video = job.video.with_name(f"{job.video.stem}-{number}{job.video.suffix}")
        names.add(video)
        job = replace(job, video=video)
        for path in (job.video, job.record):
            if path.is_dir():
                raise ValueError(f"{path} is a folder, where a file is to go; choose another --out")
        if where == "skip" and job.video.exists():
            done.append(job)
            continue
        if where == "skip" and _is_of_another(job):
            raise ValueError(f"{job.record} is there, and is not of {job.video}; give another --out")
        todo.append(job)
    return todo, done


def _is_taken(job: Job) -> bool:
    return job.video.exists() or job.record.exists()


class _Made(Record):
    """What the record of a video says of it."""

    video: str


def _is_of_another(job: Job) -> bool:
    """Whether the file where the record goes is somebody's own, or of a video in another format that is still there."""
    if not job.record.exists():
        return False
    try:
        video = job.video.with_name(Path(read_json(job.record, _Made).video).name)
    except ValueError:
        return True
    return video != job.video and video.exists()
