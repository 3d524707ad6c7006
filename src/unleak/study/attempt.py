"""The closed loop of `unleak try`: several seeds and starts are tried, and the best video is kept.

What stands still, dissolves or leaves its photo is rejected by measuring it; of the rest, the one that moves most is
kept. The plain video of the first seed is made too, to compare with.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from unleak import __version__
from unleak.animate.model import Model
from unleak.animate.record import Photo, asked, provenance, public
from unleak.animate.sample import sample
from unleak.animate.settings import Settings, presets
from unleak.attach.apply import applied, summary
from unleak.attach.encodings import encoded_once
from unleak.attach.seams import seam_of
from unleak.core.initial import InitialNoise
from unleak.core.start import Start
from unleak.data.atomic import folder_written_whole
from unleak.data.video import write_video
from unleak.families.spec import ModelSpec
from unleak.report.sweep_page import page
from unleak.report.sweep_sheet import contact_sheet
from unleak.study.fixed_call import FixedCall, loaded
from unleak.study.place import check_replaceable
from unleak.study.sweep import PAGE, SHEET, Frames, Run, check_measurable
from unleak.study.verdict import Verdict, verdict

__all__ = ["BUDGET", "RECORD", "Attempt", "Candidate", "fix", "starts_to_try", "try_photo"]

BUDGET = 6
RECORD = "try.json"
_NO_MOTION = 0.1  # of the motion score, px
_WORSE_FIRST_FRAME = 3.0  # dB below the plain video's; more is not the photo any longer

Made = tuple[Frames, Mapping[str, Any], Sequence[float] | None]
"""Frames, the level they were started from, and the sigmas that were run if they are known."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One video that was tried."""

    start: Start
    seed: int
    run: Run
    verdict: Verdict
    seconds: float

    def rejected(self, plain: "Candidate") -> str | None:
        """Why it is not worth keeping; None if it is."""
        if self.verdict.still:
            return "stands still"
        if not self.verdict.sharp:
            return "blurs" if self.verdict.sharpness < 1 else "dissolves"
        if self.verdict.first_frame < plain.verdict.first_frame - _WORSE_FIRST_FRAME:
            return "leaves the photo"
        return None

    @property
    def label(self) -> str:
        """Return its start and seed."""
        return f"{self.start}, seed {self.seed}"


@dataclass(frozen=True, eq=False, repr=False)
class Attempt:
    """The videos that were tried, and the best of them. `save` makes a page of all."""

    plain: Candidate
    candidates: tuple[Candidate, ...]
    fps: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Return whether a video is worth keeping."""
        return any(one.rejected(self.plain) is None for one in self.candidates)

    @property
    def best(self) -> Candidate:
        """Return the candidate that moves most of those worth keeping; of none, the sharp one that moves most."""
        kept = [one for one in self.candidates if one.rejected(self.plain) is None]
        sharp = [one for one in self.candidates if one.verdict.sharp]
        return max(kept or sharp or self.candidates, key=lambda one: one.run.motion.value)

    @property
    def frames(self) -> Frames:
        """Return the frames of the best video."""
        return self.best.run.frames

    @property
    def moved(self) -> float | None:
        """Motion score of the best video over that of the plain one; None for a plain one without any motion."""
        before = self.plain.run.motion.value
        return self.best.run.motion.value / before if before > _NO_MOTION else None

    @property
    def seconds(self) -> float:
        """Return how long all videos took."""
        return sum(one.seconds for one in (self.plain, *self.candidates))

    @property
    def text(self) -> str:
        """Say what came of it, in a line."""
        best = self.best
        sharp = "sharp" if best.verdict.sharp else "not sharp"
        moved = "moved, which plain did not" if self.moved is None else f"moved {self.moved:.1f}x plain"
        said = f"{moved}, {sharp}, {self.seconds:.0f} s, seed {best.seed}, start {best.start}"
        if self.found:
            return said
        reasons = sorted({one.rejected(self.plain) or "" for one in self.candidates})
        return f"none of {len(self.candidates)} videos is worth keeping ({', '.join(reasons)}); the best {said}"

    @property
    def record(self) -> dict[str, Any]:
        """Return all but the frames, as plain values for a JSON file."""
        f, h, w, _ = self.frames.shape
        runs = []
        for number, one in enumerate((self.plain, *self.candidates)):
            reason = one.rejected(self.plain) if number else None
            said = "plain" if not number else "best" if one is self.best else reason or "good"
            runs.append(
                {
                    **one.run.record,
                    "label": one.label if number else f"plain, seed {one.seed}",
                    "best": one is self.best,
                    "seed": one.seed,
                    "measured": one.verdict.record,
                    "rejected": reason,
                    "told": f"{said}; first frame {one.verdict.first_frame:.1f} dB",
                    "video": "plain.mp4" if not number else f"candidate-{number}.mp4",
                }
            )
        found: dict[str, Any] = {
            "unleak": __version__,
            "title": "What was tried",
            **self.about,
            "lead": f"The model as it is (plain), and {len(self.candidates)} tries with the fix, each from another"
            f" noise (seed) or noise level to begin at (start). Result: {self.text}.",
            "seed": self.best.seed,
            "chosen": {"start": str(self.best.start), "seed": self.best.seed, "moved": self.moved, "found": self.found},
            "video": {"num_frames": f, "height": h, "width": w, "fps": self.fps},
            "metric": {
                "motion": f"mean optical flow per pair of frames, summed over the pairs, in px; "
                f"{self.plain.run.motion.estimator}",
                "camera": "pan: median over the pairs of the camera's speed at the frame's centre, px of the video per "
                "frame; pairs that no camera motion explains are null and do not count",
                "first_frame": "PSNR of the first frame against the photo, in dB; higher is closer",
            },
            "runs": runs,
        }
        plain: dict[str, Any] = public(found)
        return plain

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page, the contact sheet, each video and a JSON file to `folder`; return the page's path.

        The folder appears whole or not at all. Raises ValueError if it is there already, unless `overwrite` is set and
        it holds an older result of this and nothing else.
        """
        folder = Path(folder)
        check_replaceable(folder, overwrite=overwrite, record=RECORD)
        record, shown = self.record, (self.plain, *self.candidates)
        videos = [run["video"] for run in record["runs"]]
        record["files"] = sorted([PAGE, SHEET, RECORD, *videos])
        with folder_written_whole(folder) as temporary:
            for one, name in zip(shown, videos, strict=True):
                write_video(one.run.frames, temporary / name, fps=self.fps)
            labels = [(one.label, run["told"]) for one, run in zip(shown, record["runs"], strict=True)]
            contact_sheet([one.run.frames for one in shown], labels).save(temporary / SHEET)
            text = page(record, [(temporary / name).read_bytes() for name in videos])
            (temporary / PAGE).write_text(text, encoding="utf-8")
            (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return folder / PAGE

    def __repr__(self) -> str:
        rows = [("start", "seed", "motion", "first frame", "sharpness", "")]
        for one in (self.plain, *self.candidates):
            said = "plain" if one is self.plain else "best" if one is self.best else one.rejected(self.plain) or ""
            seen = one.verdict
            numbers = (f"{one.run.motion.value:.1f}", f"{seen.first_frame:.1f} dB", f"{seen.sharpness:.2f}")
            rows.append((str(one.start), str(one.seed), *numbers, said))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self.text, *lines])


def fix(
    pipe: Any,
    *,
    image: Image.Image,
    budget: int = BUDGET,
    start: Start | str | float | int | None = None,
    init: InitialNoise | str = "standard",
    mode: str = "auto",
    seed: int = 0,
    strategies: Sequence[Any] = (),
    fps: float | int | None = None,
    **inputs: Any,
) -> Attempt:
    """Animate `image` with the fix until it moves: several seeds and starts, of which the best video is kept.

    pipe: a loaded pipeline, or what `unleak.load` takes: a name, a folder, a Hub id.
    budget: videos to try, beside the plain one. start: where to begin; None: the `medium` preset of the pipeline's
    family. Lower starts are tried too. init, mode, strategies: as `unleak.apply` has them. seed: the first one. fps: at
    which the video is played, Hz; given to the pipeline if it takes a frame rate. inputs: other arguments of the
    pipeline's call.

    The pipeline is left as it was found. Raises ValueError for what cannot be had, and for a pipeline without presets
    if no `start` is given. Needs `pip install 'unleak[evaluate]'`.
    """
    inputs = {"image": image, **inputs}
    pipe = loaded(pipe)
    call = FixedCall.checked(pipe, inputs, init=init, mode=mode, strategies=strategies, seed=seed, fps=fps)
    known = seam_of(pipe).motion
    given = Start.parse(start) if isinstance(start, str | int | float) else start
    starts = [one for one in (given or known.get("medium"), known.get("high")) if one is not None]
    if not starts:
        raise ValueError(f"no fix is known for a {type(pipe).__name__} yet; give start, such as start='0.94T'")

    def make(one: Start, number: int, *, plain: bool = False) -> Made:
        own = replace(call, seed=number)
        if plain:
            own = replace(own, init="standard", strategies=())
        with applied(pipe, start=one, **own.plan):
            level = summary(pipe, num_inference_steps=inputs.get("num_inference_steps")).level
        return own.frames(one), {"asked": str(one), **level}, None

    with encoded_once(pipe):
        plain, found = _tried(make, image, starts, budget=budget, seed=seed, fps=call.rate)
    return Attempt(plain, found, call.rate, call.about("unleak.fix", budget=budget))


def try_photo(
    model: Model,
    photo: Photo,
    settings: Settings,
    *,
    budget: int = BUDGET,
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Attempt:
    """Do what `fix` does with a loaded model, from the start and the seed in `settings` on.

    about: what else the record is to hold. on_step: called with the number of the video, 0 for the plain one, and how
    many of its steps are done.
    """
    number = 0

    def make(start: Start, seed: int, *, plain: bool = False) -> Made:
        nonlocal number
        its = replace(settings, start=start, motion=None, seed=seed)
        if plain:
            its = replace(its, init="standard", strategies=())
        place, number = number, number + 1
        report = None if on_step is None else lambda done, of: on_step(place, done, of)
        made = sample(model.pipe, photo.image, its, model.noise(its), on_step=report)
        return made.frames, made.record["start"], made.record["sigmas"]

    starts = starts_to_try(model.spec, settings)
    with model.advising(settings), encoded_once(model.pipe):
        plain, found = _tried(make, photo.image, starts, budget=budget, seed=settings.seed, fps=settings.fps)
    how = {"title": f"{photo.path.name}: what was tried", "budget": budget}
    return Attempt(plain, found, settings.fps, {**how, **asked(settings), **provenance(model, photo), **(about or {})})


def starts_to_try(spec: ModelSpec, settings: Settings) -> list[Start]:
    """Return the start of `settings` and the lower ones worth trying; ValueError for a model without any."""
    known = presets(spec)
    first = settings.start or known.get(settings.motion or "")
    if first is None:
        raise ValueError(f"no fix is known for {spec.name} yet; give --start, such as --start 0.94T")

    def log_snr(start: Start) -> float:
        found = replace(settings, start=start, motion=None).level(spec).get("log_snr")
        return float("-inf") if found is None else float(found)

    return [first, *(one for one in known.values() if log_snr(one) > log_snr(first))]


def _tried(
    make: Callable[..., Made], image: Image.Image, starts: Sequence[Start], *, budget: int, seed: int, fps: float
) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Make the plain video and `budget` candidates, and measure each."""
    if budget < 1:
        raise ValueError(f"budget {budget}: give 1 video to try, or more")
    check_measurable()

    def candidate(start: Start, number: int, *, plain: bool = False) -> Candidate:
        began = time.monotonic()
        frames, level, sigmas = make(start, number, plain=plain)
        run = Run.measured(dict(level), sigmas, frames)
        seen = verdict(frames, image, fps=fps, motion=run.motion)
        return Candidate(start, number, run, seen, time.monotonic() - began)

    plain = candidate(Start.fraction(1.0), seed, plain=True)
    return plain, tuple(candidate(start, number) for start, number in _pairs(starts, budget, seed))


def _pairs(starts: Sequence[Start], budget: int, seed: int) -> Iterable[tuple[Start, int]]:
    """Return pairs of start and seed: the first start with the first seeds early, every start with some seed soon."""
    pairs = ((place, number) for place in range(len(starts)) for number in range(budget))
    order = sorted(pairs, key=lambda pair: (sum(pair), pair))
    return ((starts[place], seed + number) for place, number in islice(order, budget))
