"""Run one input from several starts with the same noise, and measure how much the start makes a model move."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from unleak import __version__
from unleak.animate.model import Model
from unleak.animate.record import Photo, asked, provenance, public
from unleak.animate.sample import sample
from unleak.animate.settings import Settings
from unleak.attach.apply import applied, summary
from unleak.core.initial import InitialNoise
from unleak.core.start import Start
from unleak.data.atomic import folder_written_whole
from unleak.data.video import write_video
from unleak.measure.motion import MotionScore, camera_path, motion_score
from unleak.report.sweep_page import page
from unleak.report.sweep_sheet import contact_sheet
from unleak.study.fixed_call import FixedCall, loaded
from unleak.study.place import check_replaceable

__all__ = ["Run", "Sweep", "check_measurable", "check_replaceable", "parse_starts", "run_all", "sweep", "sweep_photo"]

Frames = UInt8[np.ndarray, "f h w 3"]

PAGE, SHEET, RECORD = "index.html", "sheet.png", "sweep.json"


@dataclass(frozen=True, eq=False)
class Run:
    """The video of one start, and how much it moves."""

    start: dict[str, Any]
    """`asked`, and the level in every unit (`unleak.core.start.describe`)."""
    sigmas: tuple[float, ...] | None
    """The schedule that was run, the last level included; None where the pipeline alone knows it."""
    frames: Frames
    motion: MotionScore
    camera: Float[np.ndarray, "pairs 4"]
    """dx, dy, log zoom, rotation of each pair of frames, NaN where none explains it (`camera_motion`)."""

    @classmethod
    def measured(cls, start: dict[str, Any], sigmas: Sequence[float] | None, frames: Frames) -> "Run":
        """Measure `frames`."""
        known = None if sigmas is None else tuple(sigmas)
        return cls(start, known, frames, motion_score(frames), camera_path(frames))

    @property
    def pan(self) -> float | None:
        """Return the camera's speed at the frame's centre, px of the video a frame: the median of explained pairs."""
        if np.isnan(self.camera).all():
            return None
        return float(np.hypot(*np.nanmedian(self.camera[:, :2], 0)))

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return all but the frames, as plain values."""
        pairs = [None if np.isnan(pair).any() else pair.tolist() for pair in self.camera]
        return {
            "start": self.start,
            "sigmas": None if self.sigmas is None else list(self.sigmas),
            "motion": {"score": self.motion.value, "per_pair": list(self.motion.per_pair)},
            "camera": {"pan": self.pan, "explained": sum(pair is not None for pair in pairs), "per_pair": pairs},
            "video": f"start-{self.start['asked']}.mp4",
        }


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Videos of the same input and noise from several starts. `save` makes the page."""

    runs: tuple[Run, ...]
    fps: float
    about: Mapping[str, Any]
    """How they were made, as plain values: seed, init, mode, settings, model, versions, the way to reproduce it."""

    @property
    def starts(self) -> tuple[dict[str, Any], ...]:
        """Return the start of each run in every unit."""
        return tuple(run.start for run in self.runs)

    @property
    def frames(self) -> tuple[Frames, ...]:
        """Return the frames of each run, uint8 RGB [f h w 3]."""
        return tuple(run.frames for run in self.runs)

    @property
    def scores(self) -> tuple[float, ...]:
        """Return the motion score of each run: sums over the pairs of frames, in px at 800x450."""
        return tuple(run.motion.value for run in self.runs)

    @property
    def record(self) -> dict[str, Any]:
        """Return all but the frames, as plain values for a JSON file."""
        f, h, w, _ = self.runs[0].frames.shape
        found: dict[str, Any] = {
            "unleak": __version__,
            **self.about,
            "video": {"num_frames": f, "height": h, "width": w, "fps": self.fps},
            "metric": {
                "motion": f"mean optical flow per pair of frames, summed over the pairs, in px; {self._estimator}",
                "camera": "pan: median over the pairs of the camera's speed at the frame's centre, px of the video per "
                "frame; pairs that no camera motion explains are null and do not count",
            },
            "runs": [run.record for run in self.runs],
        }
        plain: dict[str, Any] = public(found)
        return plain

    @property
    def _estimator(self) -> str:
        return self.runs[0].motion.estimator

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page, the contact sheet, each video and a JSON file to `folder`; returns the page's path.

        The folder appears whole or not at all. Raises ValueError if it is there already, unless `overwrite` is set and
        it holds an older sweep and nothing else.
        """
        folder = Path(folder)
        check_replaceable(folder, overwrite=overwrite)
        record = self.record
        videos = [run["video"] for run in record["runs"]]
        record["files"] = sorted([PAGE, SHEET, RECORD, *videos])
        with folder_written_whole(folder) as temporary:
            for run, name in zip(self.runs, videos, strict=True):
                write_video(run.frames, temporary / name, fps=self.fps)
            labels = [(run.start["asked"], f"motion {run.motion.value:.1f}") for run in self.runs]
            contact_sheet(self.frames, labels).save(temporary / SHEET)
            text = page(record, [(temporary / name).read_bytes() for name in videos])
            (temporary / PAGE).write_text(text, encoding="utf-8")
            (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return folder / PAGE

    def __repr__(self) -> str:
        rows = [("start", "sigma", "log-SNR", "motion", "camera px/frame")]
        for run in self.runs:
            numbers = [run.start["sigma"], run.start["log_snr"], run.motion.value, run.pan]
            rows.append((run.start["asked"], *("-" if x is None else f"{x:.4g}" for x in numbers)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([f"Sweep of {len(self.runs)} starts from the same noise; {self._estimator}", *lines])


def sweep(
    pipe: Any,
    *,
    start: str | Sequence[Start | str | float | int],
    init: InitialNoise | str = "standard",
    mode: str = "auto",
    seed: int = 0,
    strategies: Sequence[Any] = (),
    fps: float | int | None = None,
    **inputs: Any,
) -> Sweep:
    """Call `pipe` once for every `start`, each time with the same noise and the same `inputs`, and measure the motion.

    pipe: a loaded pipeline, or what `unleak.load` takes: a name, a folder, a Hub id.
    start: what `unleak.apply` takes, several of them, or one text with commas: "1.00T,0.94T,sigma=100".
    init, mode, strategies: as `unleak.apply` has them, the same for all.
    seed: of the CPU generator that every call is given.
    fps: of the saved videos, in Hz; handed to the pipeline if it takes one. None: the pipeline's own.
    inputs: the arguments of the pipeline's call: image, prompt, num_frames, ...

    The pipeline is left as it was found. Raises ValueError before anything is run if a start cannot be had on this
    pipeline. Needs `pip install 'unleak[evaluate]'`.
    """
    pipe = loaded(pipe)
    call = FixedCall.checked(pipe, inputs, init=init, mode=mode, strategies=strategies, seed=seed, fps=fps)
    check_measurable()
    starts = parse_starts(start)
    runs = run_all(
        pipe, starts, lambda one: (call.frames(one), None), steps=inputs.get("num_inference_steps"), **call.plan
    )
    return Sweep(runs, call.rate, call.about("unleak.sweep", start=[str(one) for one in starts]))


def sweep_photo(
    model: Model,
    photo: Photo,
    each: Mapping[Start, Settings],
    *,
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[Start, int, int], None] | None = None,
) -> Sweep:
    """Do what `sweep` does with a loaded model: animate `photo` with the settings of every start.

    each: settings that differ in nothing but the start and, for the plain one, the initial noise. about: what else the
    record is to hold, such as a title. on_step: called with the start, and how many of its steps are done.

    Raises ValueError for two starts that are the same level, and for what the model cannot do.
    """
    first = next(iter(each.values()))

    def make(start: Start) -> tuple[Frames, Sequence[float] | None]:
        report = None if on_step is None else partial(on_step, start)
        made = sample(model.pipe, photo.image, each[start], model.noise(each[start]), on_step=report)
        return made.frames, made.record["sigmas"]

    with model.advising(first):
        plan = {"init": model.noise(first), "mode": first.mode}
        runs = run_all(model.pipe, tuple(each), make, steps=first.steps, **plan)
    title = {"title": f"{photo.path.name}: motion against start"}
    return Sweep(runs, first.fps, {**title, **asked(first), **provenance(model, photo), **(about or {})})


def parse_starts(start: str | Sequence[Start | str | float | int]) -> tuple[Start, ...]:
    """Read the starts of a sweep from a sequence or from a text with commas; ValueError if there is none."""
    given = [text for text in start.split(",") if text.strip()] if isinstance(start, str) else start
    starts = tuple(one if isinstance(one, Start) else Start.parse(one) for one in given)
    if not starts:
        raise ValueError("a sweep needs one start or more: say for example 1.00T,0.94T,0.90T.")
    return starts


def run_all(
    pipe: Any,
    starts: Sequence[Start],
    make: Callable[[Start], tuple[Frames, Sequence[float] | None]],
    *,
    steps: int | None,
    **plan: Any,
) -> tuple[Run, ...]:
    """Measure the frames that `make` gives for each start, after each was tried out on the pipeline's schedule.

    `make` gives frames, and the sigmas that were run if it knows them; `plan` is what `apply` takes besides the start.
    Raises ValueError, before anything is made, for a start that cannot be had, and for two that are the same level.
    """
    summaries = []
    for start in starts:
        with applied(pipe, start=start, **plan):
            summaries.append(summary(pipe, num_inference_steps=steps))
    seen: dict[tuple[float, float], Start] = {}
    for start, plan_of in zip(starts, summaries, strict=True):
        other = seen.setdefault((plan_of.level["alpha"], plan_of.level["noise"]), start)
        if other is not start:
            raise ValueError(f"starts {other} and {start} are the same level of noise on this model: give one of them.")
    runs = []
    for start, plan_of in zip(starts, summaries, strict=True):
        frames, sigmas = make(start)
        runs.append(Run.measured({"asked": str(start), **plan_of.level}, sigmas or plan_of.after, frames))
    return tuple(runs)


def check_measurable() -> None:
    """Raise ModuleNotFoundError if what measures is not installed: before the first video, not after it."""
    Run.measured({}, (), np.zeros((2, 16, 16, 3), np.uint8))
