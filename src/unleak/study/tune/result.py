"""The result of a search for the start of one photo: the start, why, and every preview."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from unleak import __version__
from unleak.animate.record import public
from unleak.core.start import Start
from unleak.data.atomic import folder_written_whole
from unleak.data.video import write_video
from unleak.measure.fidelity import first_frame_psnr
from unleak.measure.motion import ESTIMATOR
from unleak.report.sweep_page import page
from unleak.report.sweep_sheet import contact_sheet
from unleak.study.place import check_replaceable
from unleak.study.sweep import PAGE, SHEET, Run
from unleak.study.tune.bisection import Goal, Seen, choice
from unleak.study.tune.goal import BEST_PSNR, Fidelity, TargetMotion

__all__ = ["PLAIN", "RECORD", "Fidelity", "Preview", "TargetMotion", "Tuned"]

Frames = UInt8[np.ndarray, "f h w 3"]

RECORD = "tune.json"
PLAIN = -14.0
"""Log-SNR, EDM sigma 1097: above it every start is the plain one, whose own log-SNR may be infinite."""
_FULL = "chosen.mp4"


@dataclass(frozen=True, eq=False)
class Preview:
    """One start that was tried."""

    start: Start
    run: Run
    speed: float
    """Pixels of the video per frame (`unleak.measure.speed`)."""
    first_frame: float
    """PSNR against the photo, dB."""

    @classmethod
    def measured(
        cls,
        start: Start,
        level: Mapping[str, Any],
        sigmas: Sequence[float] | None,
        frames: Frames,
        photo: UInt8[np.ndarray, "h w 3"],
    ) -> "Preview":
        """Measure `frames`, which were made of `photo` from `start`."""
        fidelity = min(first_frame_psnr(frames, photo), BEST_PSNR)
        run = Run.measured(dict(level), sigmas, frames)
        return cls(start, run, run.motion.speed, fidelity)

    @property
    def seen(self) -> Seen:
        """Return what the search looks at; the plain start is at the end of its range."""
        log_snr = self.run.start["log_snr"]
        return Seen(PLAIN if log_snr is None else max(PLAIN, log_snr), self.speed, self.first_frame)

    def record(self, fps: float) -> dict[str, Any]:
        """Return all but the frames, as plain values."""
        measured = {"speed": {"px_per_frame": self.speed, "px_per_second": self.speed * fps}}
        told = f"{self.speed * fps:.3g} px/s, first frame {self.first_frame:.1f} dB"
        return {**self.run.record, **measured, "first_frame_psnr": self.first_frame, "told": told}


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """The start that was found for a photo, why, and every preview. `save` makes the page."""

    previews: tuple[Preview, ...]
    """In the order they were made: the plain start first."""
    target: TargetMotion
    fidelity: Fidelity
    fps: float
    photo: UInt8[np.ndarray, "h w 3"]
    """As the pipeline shows it."""
    full: Preview | None = None
    """The video of the chosen start with all of its steps, where it was made."""
    about: Mapping[str, Any] = field(default_factory=dict)

    def completed(self, frames: Frames, level: Mapping[str, Any], sigmas: Sequence[float] | None) -> "Tuned":
        """Add the video that the chosen start gave with all its steps."""
        return replace(self, full=Preview.measured(self.start, level, sigmas, frames, self.photo))

    @property
    def goal(self) -> Goal:
        """Return what was looked for: px/frame and dB."""
        least = self.fidelity.least(self.previews[0].first_frame)
        return Goal(self.target.per_frame(self.fps), least)

    @property
    def chosen(self) -> Preview:
        """Return the preview of the start that was chosen."""
        return self.previews[choice([one.seen for one in self.previews], self.goal)]

    @property
    def start(self) -> Start:
        """Return what to give to `apply`."""
        return self.chosen.start

    @property
    def reached(self) -> bool:
        """Return whether the chosen preview moves enough and keeps the photo."""
        return self.goal.met(self.chosen.seen)

    @property
    def reason(self) -> str:
        """Why this start, in words."""
        goal, one, plain = self.goal, self.chosen, self.previews[0]
        moves = f"moves {self._speed(one)}"
        bound = f"{goal.fidelity:.1f} dB ({self.fidelity})"
        frame = f"its first frame has {one.first_frame:.1f} dB against the photo, where the bound is {bound}"
        if self.reached and one is plain:
            return f"the plain pipeline already {moves}, {self.target} asked; {frame}"
        if self.reached:
            before = f"the highest start tried that reaches {self.target}"
            return f"start {one.start} {moves}, {before}; plain moves {self._speed(plain)}; {frame}"
        if not goal.holds(one.seen):
            return f"no start tried is within the bound of {bound}: {one.start} comes nearest, {one.first_frame:.1f} dB"
        over = [other for other in self.previews if goal.moves(other.seen)]
        if over:
            first = min(over, key=lambda other: other.seen.log_snr)
            why = f"{first.start} moves {self._speed(first)}, but its first frame has {first.first_frame:.1f} dB"
        else:
            lowest = max(self.previews, key=lambda other: other.seen.log_snr)
            why = f"no start down to {lowest.start} moves that fast"
        most = f"{one.start} moves most within the bound, {self._speed(one)}"
        return f"{self.target} is out of reach: {why}; {most}; {frame}"

    @property
    def check(self) -> str | None:
        """Return what the video with all steps says of the previews; None without one."""
        if self.full is None:
            return None
        goal, text = self.goal, f"with all its steps it moves {self._speed(self.full)}"
        text += f", first frame {self.full.first_frame:.1f} dB"
        if self.reached and not goal.moves(self.full.seen):
            return f"{text}: less than the preview said; give more preview steps, or a higher target"
        if goal.holds(self.chosen.seen) and not goal.holds(self.full.seen):
            return f"{text}: below the bound, unlike the preview; give more preview steps, or a higher bound"
        return text

    def _speed(self, one: Preview) -> str:
        return self.target.text(one.speed, self.fps)

    @property
    def summary(self) -> dict[str, Any]:
        """Return the choice and a line for each preview, as plain values."""
        rows = [
            {
                "start": str(one.start),
                "px_per_frame": one.speed,
                "px_per_second": one.speed * self.fps,
                "first_frame_psnr": one.first_frame,
            }
            for one in self.previews
        ]
        return {
            "target_motion": str(self.target),
            "fidelity": str(self.fidelity),
            "least_first_frame_psnr": self.goal.fidelity,
            "start": str(self.start),
            "reached": self.reached,
            "reason": self.reason,
            "check": self.check,
            "previews": rows,
        }

    @property
    def record(self) -> dict[str, Any]:
        """Return all but the frames, as plain values for a JSON file."""
        f, h, w, _ = self.previews[0].run.frames.shape
        runs = [one.record(self.fps) for one in self._shown]
        if self.full is not None:
            runs[-1]["video"] = _FULL
        found: dict[str, Any] = {
            "unleak": __version__,
            "title": f"start {self.start}",
            **self.about,
            "lead": f"Which start does this photo need? {len(self.previews)} quick previews from the same noise. "
            + ". ".join(text[:1].upper() + text[1:] for text in (self.reason, self.check) if text)
            + ".",
            "chosen": {name: value for name, value in self.summary.items() if name != "previews"},
            "video": {"num_frames": f, "height": h, "width": w, "fps": self.fps},
            "metric": {
                "motion": f"mean optical flow per pair of frames, summed over the pairs, in px; {ESTIMATOR}",
                "camera": "pan: median over the pairs of the camera's speed at the frame's centre, px of the video per "
                "frame; pairs that no camera motion explains are null and do not count",
                "speed": "the same flow scaled back to the video's own pixels, mean over the pairs",
                "first_frame_psnr": f"of the first frame against the photo, dB, {BEST_PSNR:g} at most",
            },
            "runs": runs,
        }
        plain: dict[str, Any] = public(found)
        return plain

    @property
    def _shown(self) -> list[Preview]:
        """Return the previews, noisiest first, and what came of them."""
        order = sorted(self.previews, key=lambda one: one.seen.log_snr)
        if self.full is None:
            return order
        label = {"asked": f"{self.full.start} in full"}
        return [*order, replace(self.full, run=replace(self.full.run, start=self.full.run.start | label))]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page, the contact sheet, each video and a JSON file to `folder`; returns the page's path.

        The folder appears whole or not at all. Raises ValueError if it is there already, unless `overwrite` is set and
        it holds an older result of this and nothing else.
        """
        folder = Path(folder)
        check_replaceable(folder, overwrite=overwrite, record=RECORD)
        record, shown = self.record, self._shown
        videos = [run["video"] for run in record["runs"]]
        record["files"] = sorted([PAGE, SHEET, RECORD, *videos])
        with folder_written_whole(folder) as temporary:
            for one, name in zip(shown, videos, strict=True):
                write_video(one.run.frames, temporary / name, fps=self.fps)
            labels = [[str(one.start), self._speed(one), f"first {one.first_frame:.1f} dB"] for one in shown]
            if self.full is not None:
                labels[-1].append("all steps")
            contact_sheet([one.run.frames for one in shown], [tuple(lines) for lines in labels]).save(temporary / SHEET)
            text = page(record, [(temporary / name).read_bytes() for name in videos])
            (temporary / PAGE).write_text(text, encoding="utf-8")
            (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return folder / PAGE

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [("start", "sigma", "log-SNR", self.target.unit, "camera", "first frame dB", "")]
        for one in self.previews:
            level = one.run.start
            numbers = ["-" if level[unit] is None else f"{level[unit]:.4g}" for unit in ("sigma", "log_snr")]
            texts = ("-" if x is None else self.target.text(x, self.fps) for x in (one.speed, one.run.pan))
            speeds = [text.removesuffix(self.target.unit) for text in texts]
            said = [] if one is not self.chosen else ["chosen"]
            said += [] if self.goal.moves(one.seen) else ["too still"]
            said += [] if self.goal.holds(one.seen) else ["below the bound"]
            rows.append((str(one.start), *numbers, *speeds, f"{one.first_frame:.1f}", ", ".join(said)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([*(text.rjust(width) for text, width in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        ]
        return "\n".join([f"{len(self.previews)} previews from the same noise, in the order made", *lines])
