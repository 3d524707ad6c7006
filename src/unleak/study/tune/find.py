"""Find the start for one photo: cheap previews from the same noise, and the highest start that moves enough."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from unleak.animate.call import Call
from unleak.animate.model import Model
from unleak.animate.record import Photo, asked, provenance
from unleak.animate.sample import Sample, sample
from unleak.animate.settings import Settings, presets
from unleak.attach.apply import applied, summary
from unleak.attach.encodings import encoded_once
from unleak.attach.schedule import nearest, process_of
from unleak.attach.seams import seam_of
from unleak.core.initial import InitialNoise
from unleak.core.process import VP, NoiseProcess
from unleak.core.start import Start, describe
from unleak.families.spec import ModelSpec
from unleak.study.fixed_call import FixedCall, loaded
from unleak.study.sweep import check_measurable
from unleak.study.tune.bisection import Goal, next_log_snr
from unleak.study.tune.goal import Fidelity, TargetMotion
from unleak.study.tune.result import PLAIN, Frames, Preview, Tuned
from unleak.study.verdict import as_shown

__all__ = [
    "BUDGET",
    "LEAST_FIDELITY",
    "Search",
    "find_start",
    "lowest_start",
    "steps_of_preview",
    "tune",
    "tune_photo",
]

BUDGET = 6
LEAST_FIDELITY = "plain-3dB"
_SHARE = 0.04  # of the width a second, where no speed is asked for
_FEWEST_STEPS = 9  # a step more than the schedules of distilled models, which a model made for many cannot do with


def tune(
    pipe: Any,
    *,
    target_motion: str | None = None,
    budget: int = BUDGET,
    fidelity: str = LEAST_FIDELITY,
    lowest: Start | str | float | int | None = None,
    preview_steps: int | None = None,
    init: InitialNoise | str = "standard",
    mode: str = "auto",
    seed: int = 0,
    strategies: Sequence[Any] = (),
    fps: float | int | None = None,
    **inputs: Any,
) -> Tuned:
    """Find the start for one photo: the highest that moves `target_motion` while its first frame stays the photo.

    pipe: a loaded pipeline, or what `unleak.load` takes: a name, a folder, a Hub id.
    target_motion: `8px/s` or `0.5px/frame`, pixels of the video, mean over the picture (`unleak.measure.speed`); None:
    4 % of the width a second.
    budget: previews at most. Each has the noise, photo and size of the final video, and fewer steps.
    fidelity: the least PSNR of the first frame: `22dB`, or `plain-3dB`, that far below the plain video's.
    lowest: the least noisy start allowed; None: the `high` preset of the pipeline's family.
    preview_steps: None: a third of `num_inference_steps`, 9 at least.
    init, mode, strategies: as `unleak.apply` has them. seed: of the CPU generator that every call is given.
    fps: at which the video is played, Hz; handed to the pipeline if it takes one. None: the pipeline's own.
    inputs: the arguments of the pipeline's call: image (one PIL image), prompt, num_frames, ...

    Give the `start` of the result to `unleak.apply`, and its seed to the call. Starts are found by bisection over
    log-SNR, and only one that was seen to do it is chosen; if none does, `reached` is False and the start is the one
    that moves most within the bound. The pipeline is left as it was found. Raises ValueError before anything is run for
    what cannot be had. Needs `pip install 'unleak[evaluate]'`.
    """
    image = inputs.get("image")
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: give one PIL image, not {type(image).__name__}: a start is found for one photo.")
    pipe = loaded(pipe)
    call = FixedCall.checked(pipe, inputs, init=init, mode=mode, strategies=strategies, seed=seed, fps=fps)
    steps = inputs.get("num_inference_steps") or Call.of(type(pipe)).default("steps")
    fewer = preview_steps or steps_of_preview(steps)
    with encoded_once(pipe):
        found = find_start(
            pipe,
            image,
            lambda start: (call.frames(start, num_inference_steps=fewer), None),
            target=None if target_motion is None else TargetMotion.parse(target_motion),
            fidelity=Fidelity.parse(fidelity),
            lowest=None if lowest is None else lowest if isinstance(lowest, Start) else Start.parse(lowest),
            budget=budget,
            fps=call.rate,
            steps=fewer,
            plan=call.plan,
        )
    asked = {"target_motion": target_motion, "budget": budget, "fidelity": fidelity}
    asked |= {} if lowest is None else {"lowest": str(lowest)}
    return replace(
        found,
        about=call.about("unleak.tune", **asked, preview_steps=fewer) | {"preview_steps": fewer, "budget": budget},
    )


@dataclass(frozen=True)
class Search:
    """What to look for, and how hard."""

    lowest: Start
    """The least noisy start allowed."""
    target: TargetMotion | None = None
    """None: 4 % of the width per second."""
    fidelity: Fidelity = field(default_factory=lambda: Fidelity.parse(LEAST_FIDELITY))
    budget: int = BUDGET
    """Previews at most."""
    preview_steps: int | None = None
    """None: `steps_of_preview`."""


def tune_photo(
    model: Model,
    photo: Photo,
    settings: Settings,
    search: Search,
    *,
    mask: Image.Image | None = None,
    full: bool = False,
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
    on_preview: Callable[[Preview], None] | None = None,
) -> Tuned:
    """Do what `tune` does with a loaded model: find the start for `settings`, whose own start does not count.

    full: make the video of the start that was found, too. about: what else the record is to hold. on_step: called with
    what is being made, and how many steps of how many are done. on_preview: called with each preview.
    """
    pipe, noise = model.pipe, model.noise(settings)
    fewer = search.preview_steps or steps_of_preview(settings.steps)

    def make(start: Start, steps: int = fewer) -> Sample:
        arguments = {**settings.arguments, "num_inference_steps": steps}
        report = None if on_step is None else partial(on_step, str(start))
        chosen = replace(settings, start=start, motion=None, arguments=arguments)
        return sample(pipe, photo.image, chosen, noise, mask=mask, on_step=report)

    def preview(start: Start) -> tuple[Frames, Sequence[float] | None]:
        made = make(start)
        return made.frames, made.record["sigmas"]

    with model.advising(settings), encoded_once(pipe):
        found = find_start(
            pipe,
            photo.image,
            preview,
            target=search.target,
            fidelity=search.fidelity,
            lowest=search.lowest,
            budget=search.budget,
            fps=settings.fps,
            steps=fewer,
            plan={"init": noise, "mode": settings.mode, "strategies": settings.strategies},
            on_preview=on_preview,
        )
        if full and fewer == settings.steps:
            found = replace(found, full=found.chosen)
        elif full:
            made = make(found.start, settings.steps)
            found = found.completed(made.frames, made.record["start"], made.record["sigmas"])
    how = {"budget": search.budget, "preview_steps": fewer, "lowest": str(search.lowest)}
    title = {"title": f"{photo.path.name}: start {found.start}"}
    return replace(found, about={**title, **asked(settings), **how, **provenance(model, photo), **(about or {})})


def lowest_start(spec: ModelSpec) -> Start:
    """Return the least noisy start to try for a model: its `high` preset. ValueError for a model without one."""
    if (high := presets(spec).get("high")) is None:
        raise ValueError(f"nobody knows how low {spec.name} can start; give --lowest, such as 0.82T")
    return high


def steps_of_preview(steps: int) -> int:
    """Return the steps of a preview of a video of `steps` steps, where the user gives none."""
    return min(steps, max(_FEWEST_STEPS, -(-steps // 3)))


def find_start(
    pipe: Any,
    photo: Image.Image,
    make: Callable[[Start], tuple[Frames, Sequence[float] | None]],
    *,
    target: TargetMotion | None,
    fidelity: Fidelity,
    lowest: Start | None,
    budget: int,
    fps: float,
    steps: int,
    plan: Mapping[str, Any],
    on_preview: Callable[[Preview], None] | None = None,
) -> Tuned:
    """Try one start after the other with `make`, until the best one for `photo` is known.

    make: returns the frames of a start, always from the same noise, and the sigmas that were run if it knows them.
    plan: what `apply` takes besides the start. fps: at which the video is played, Hz. on_preview: called with each
    preview.

    Raises ValueError before anything is made for a `lowest` that this pipeline does not have, and a budget below 3.
    """
    if budget < 3:
        raise ValueError(f"budget {budget}: give 3 previews or more: both ends, and one between them")
    check_measurable()
    process = process_of(pipe.scheduler)
    if lowest is None:
        lowest = seam_of(pipe).motion.get("high")
        if lowest is None:
            raise ValueError(f"nobody knows how low a {type(pipe).__name__} can start; give the lowest start allowed")
    ends = {}
    for name, start in (("plain", Start.fraction(1.0)), ("lowest", lowest)):
        with applied(pipe, start=start, **plan):
            ends[name] = max(PLAIN, nearest(pipe.scheduler, start.resolve(process)).log_snr)
            summary(pipe, num_inference_steps=steps)
    if ends["lowest"] <= ends["plain"]:
        raise ValueError(f"the lowest start {lowest} is the plain one; give a lower one, such as 0.9T")

    tuned: Tuned | None = None
    while tuned is None or len(tuned.previews) < budget:
        seen = [one.seen for one in tuned.previews] if tuned else []
        place = next_log_snr(seen, tuned.goal if tuned else Goal(np.inf, np.inf), **ends)
        if place is None:
            break
        start = Start.fraction(1.0) if tuned is None else lowest if place == ends["lowest"] else _named(place, process)
        level = nearest(pipe.scheduler, start.resolve(process))
        if any(level.log_snr == one.log_snr for one in seen):  # a schedule of few levels
            break
        frames, sigmas = make(start)
        if sigmas is None:
            with applied(pipe, start=start, **plan):
                sigmas = summary(pipe, num_inference_steps=steps).after
        shown = as_shown(photo, frames) if tuned is None else tuned.photo
        one = Preview.measured(start, {"asked": str(start), **describe(level, process)}, sigmas, frames, shown)
        if tuned is None:
            share = TargetMotion(float(f"{_SHARE * frames.shape[2]:.2g}"), "px/s")
            tuned = Tuned((one,), target or share, fidelity, fps, shown)
        else:
            tuned = replace(tuned, previews=(*tuned.previews, one))
        if on_preview is not None:
            on_preview(one)
    assert tuned is not None
    return tuned


def _named(log_snr: float, process: NoiseProcess) -> Start:
    """Return a start near `log_snr` that is short to write and names its level exactly, in the process's usual unit."""
    level = process.level_at_log_snr(log_snr)
    if isinstance(process, VP):
        return Start.timestep(round(process.timestep_of(level)))
    sigma = process.sigma_of(level)
    return Start.sigma(round(sigma, 4) if sigma < 1 else float(f"{sigma:.3g}"))
