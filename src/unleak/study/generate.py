"""A photo to a video with everything that the command and the page say of it: its start found, its motion measured."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps

from unleak.animate.call import Call
from unleak.animate.cautions import cautions_of
from unleak.animate.job import Job, WhereItExists, placed
from unleak.animate.model import Loading, Model
from unleak.animate.noise import check_init, initial_noise
from unleak.animate.record import Photo, provenance
from unleak.animate.request import Request
from unleak.animate.sample import check_mask, sample
from unleak.animate.settings import Settings
from unleak.animate.size import swapped
from unleak.data.image import MediaError
from unleak.study.tune.find import Search, tune_photo
from unleak.study.tune.result import Tuned
from unleak.study.verdict import Verdict, verdict
from unleak.zoo.classes import pipeline_class
from unleak.zoo.registry import ModelSpec

__all__ = ["Batch", "Video", "generate"]


@dataclass(frozen=True, eq=False)
class Video:
    """A video, how it was made, and what was measured on it."""

    frames: UInt8[np.ndarray, "f h w 3"]
    fps: float
    record: dict[str, Any]
    cautions: tuple[str, ...]
    """What a person should know, each said once."""
    verdict: Verdict | None
    """None where what measures is not installed."""
    tuned: Tuned | None = None
    """The search for its start, where it was searched for."""


def generate(
    model: Model,
    job: Job,
    photo: Photo,
    settings: Settings,
    *,
    search: Search | None = None,
    on_step: Callable[[str | None, int, int], None] | None = None,
) -> Video:
    """Make the video of a job.

    search: find the start first, as `unleak tune` does. on_step: called with the start of a preview (None for the video
    itself), and how many steps of how many are done. Raises ValueError for what the model cannot do and where the
    memory does not suffice.
    """
    settings = replace(settings.prompted(job.prompt), seed=settings.seed + (job.seed or 0))
    mask, began, tuned = job.read_mask(), time.monotonic(), None
    with cautions_of() as caught, model.advising(settings):
        if search is not None:
            tuned = tune_photo(model, photo, settings, search, mask=mask, on_step=on_step)
            settings = replace(settings, start=tuned.start)
        made = sample(
            model.pipe,
            photo.image,
            settings,
            model.noise(settings),
            mask=mask,
            on_step=None if on_step is None else lambda done, of: on_step(None, done, of),
        )
    cautions = list(caught)
    if (caution := swapped(photo.image.size, settings.width, settings.height)) is not None:
        cautions.append(caution)
    if settings.num_frames not in (None, len(made.frames)):
        cautions.append(f"{len(made.frames)} frames, though {settings.num_frames} were asked for")
    if tuned is not None:
        tuned = tuned.completed(made.frames, made.record["start"], made.record["sigmas"])
    masked = {} if mask is None else _masked(job, mask, made.frames, cautions)
    found = _verdict(made.frames, photo, settings)
    record = {
        **provenance(model, photo),
        "video": str(job.video),
        **masked,
        **made.record,
        **({} if tuned is None else {"auto": tuned.summary}),
        **({} if found is None else {"measured": found.record}),
        "warnings": cautions,
        "seconds": round(time.monotonic() - began, 2),
    }
    return Video(made.frames, settings.fps, record, tuple(cautions), found, tuned)


def _verdict(frames: UInt8[np.ndarray, "f h w 3"], photo: Photo, settings: Settings) -> Verdict | None:
    """Measure the video; None where the packages that measure are not installed: making a video does not need them."""
    try:
        return verdict(frames, photo.image, fps=settings.fps)
    except ModuleNotFoundError:
        return None


def _masked(job: Job, mask: Image.Image, frames: UInt8[np.ndarray, "f h w 3"], cautions: list[str]) -> dict[str, Any]:
    """Describe the mask, and the motion inside and outside of it; add a caution where that cannot be measured."""
    from unleak.families.animate_anything.mask import moving

    assert job.mask is not None
    about: dict[str, Any] = {"mask": {"file": str(job.mask), "sha256": mask.info["sha256"]}}
    try:
        from unleak.measure.masked import masked_motion

        size = (frames.shape[2], frames.shape[1])
        fitted = moving(ImageOps.fit(mask, size, Image.Resampling.NEAREST))
        return about | {"motion": asdict(masked_motion(frames, fitted))}
    except ModuleNotFoundError as error:
        cautions.append(f"the motion inside and outside the mask is not known: {error}")
        return about | {"motion": None}


@dataclass(frozen=True)
class Batch:
    """Photos to be animated alike, checked: nothing is loaded yet. It can be sent to another process."""

    spec: ModelSpec
    settings: Settings
    loading: Loading
    jobs: tuple[Job, ...]
    done: tuple[Job, ...]
    """Jobs whose videos exist and are kept."""
    search: Search | None
    """What to look for where the start is found for each photo."""

    @classmethod
    def checked(
        cls,
        spec: ModelSpec,
        request: Request,
        jobs: Sequence[Job],
        *,
        loading: Loading,
        device: torch.device,
        where: WhereItExists = "number",
        search: Search | None = None,
        offline: bool = False,
    ) -> "Batch":
        """Check everything that can be checked before the model is loaded.

        where: what happens to a video that exists; see `placed`. offline: do not download moments. Raises ValueError
        for what the model or the device cannot do, and for a mask of all photos that cannot be read.
        """
        loading.check(spec, device)
        todo, done = placed(jobs, where)
        if masked := [job for job in todo if job.mask is not None]:
            check_mask(Call.of(pipeline_class(spec.pipeline)))
            if len({job.mask for job in todo}) == 1:  # no video could be made; masks of their own wait for their turn
                masked[0].read_mask()
        if search is not None:
            request = replace(request, start=search.lowest)
        settings = Settings.for_model(spec, request)
        (check_init if offline else initial_noise)(settings, spec)
        return cls(spec, settings, loading, tuple(todo), tuple(done), search)

    def share(self, rank: int, count: int) -> tuple[Job, ...]:
        """Return the jobs of process `rank` of `count`."""
        return self.jobs[rank::count]

    def videos(
        self,
        jobs: Sequence[Job],
        device: torch.device,
        *,
        say: Callable[[str], None] | None = None,
        on_step: Callable[[Job, str | None, int, int], None] | None = None,
    ) -> Iterator["Result"]:
        """Load the model, make the videos of `jobs` and write them, one after the other; a bad photo stops no other.

        say: hears what loading has to say. on_step: as in `generate`, with the job before. Raises ValueError for what
        the model cannot do and where the memory does not suffice.
        """
        model = None
        for job in jobs:
            try:
                photo = job.read()
            except (MediaError, OSError) as error:
                yield Result(job, error=error)
                continue
            if model is None:
                with self.loading.advising(self.spec, self.settings, device):
                    model = Model.load(self.spec, self.loading, device=device, say=say)
            report = None if on_step is None else partial(on_step, job)
            try:
                video = generate(model, job, photo, self.settings, search=self.search, on_step=report)
            except (MediaError, FileNotFoundError) as error:  # of its mask
                yield Result(job, error=error)
                continue
            job.write(video.frames, video.record, fps=video.fps)
            yield Result(job, tuple(photo.notes), video)


@dataclass(frozen=True)
class Result:
    """What came of a job: a video that was written, or the error of a photo that cannot be used."""

    job: Job
    notes: tuple[str, ...] = ()
    """What a person should know of how the photo was read."""
    video: Video | None = None
    error: MediaError | OSError | None = None
