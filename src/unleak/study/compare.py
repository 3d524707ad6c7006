"""Cases side by side: other fixes, other models, the same photos and the same noise, measured on every video."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from unleak import __version__
from unleak.attach.strategies.texts import BuiltIn, parse_strategies
from unleak.data.atomic import folder_written_whole
from unleak.data.video import write_video
from unleak.measure.intervals import mean_of
from unleak.measure.registry import measured, metric_names, metrics
from unleak.measure.video import Video
from unleak.report.compare_page import page
from unleak.study.sweep import Run

__all__ = ["Case", "Comparison", "Made", "default_cases"]

PAGE, RECORD, TABLE = "index.html", "compare.json", "compare.csv"
_OPTIONS = ("model", "start", "init", "mode", "motion", "guidance", "steps", "low-pass", "condition-noise",
            "guidance-interval", "lora")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One way to make the videos; what is None is as the command or the model has it. Without a start: the full one."""

    label: str
    model: str | None = None
    start: str | None = None
    init: str = "standard"
    mode: str = "rescale"
    motion: str | None = None
    guidance: str | None = None
    steps: int | None = None
    low_pass: str | None = None
    """This and the next two: as `parse_strategies` reads them."""
    condition_noise: str | None = None
    guidance_interval: str | None = None
    loras: tuple[str, ...] = ()
    """PATH or PATH:SCALE each."""

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read `LABEL: NAME=VALUE NAME=VALUE`; the label may be left out. ValueError says what is wrong with it."""
        label, _, rest = f"{text} ".rpartition(": ")
        values: dict[str, str] = {}
        for word in rest.split():
            name, equals, value = word.partition("=")
            if not equals or not value or name not in _OPTIONS:
                raise ValueError(f"--case {text!r}: {word} is not understood; give NAME=VALUE of {', '.join(_OPTIONS)}")
            if name in values:
                raise ValueError(f"--case {text!r}: {name} is given twice")
            values[name] = value
        loras = tuple(one for one in values.pop("lora", "").split(",") if one)
        steps = values.pop("steps", None)
        if steps is not None and not (steps.isascii() and steps.isdigit() and 0 < int(steps) <= 10_000):
            raise ValueError(f"--case {text!r}: steps={steps} is no whole number from 1 to 10000")
        if values.get("mode", "rescale") not in ("rescale", "truncate"):
            raise ValueError(f"--case {text!r}: mode is rescale or truncate")
        given: dict[str, Any] = {name.replace("-", "_"): value for name, value in values.items()}
        name = label.strip() or rest.strip() or "plain"
        names = ("low_pass", "condition_noise", "guidance_interval")
        try:
            parse_strategies(**{name: given.get(name) for name in names})
        except ValueError as error:
            raise ValueError(f"--case {text!r}: {error}") from None
        return cls(name, **given, steps=None if steps is None else int(steps), loras=loras)

    @property
    def strategies(self) -> tuple[BuiltIn, ...]:
        """As `unleak.apply` takes them."""
        return parse_strategies(
            low_pass=self.low_pass, condition_noise=self.condition_noise, guidance_interval=self.guidance_interval
        )


def default_cases(
    *, start: str | None, analytic: bool, guided: bool, low_pass: bool, timenoise: str | None
) -> list[Case]:
    """Plain, the recommended start, it with Analytic-Init, and the rivals that this model allows."""
    cases = [Case("plain")]
    if start:
        cases.append(Case(f"start {start}", start=start))
    if start and analytic:
        cases.append(Case(f"start {start}, Analytic-Init", start=start, init="analytic"))
    if guided:
        cases.append(Case("no guidance", guidance="1"))
    if low_pass:
        cases.append(Case("low-pass image", low_pass="0.25"))
    if timenoise:
        cases.append(Case("TimeNoise checkpoint", model=timenoise))
    return cases


@dataclass(frozen=True, eq=False)
class Made:
    """The video of one case, one photo and one seed, measured."""

    case: int
    photo: int
    seed: int
    run: Run
    values: Mapping[str, float | None]
    """Name -> value of each metric that was measured; None where it has none."""
    seconds: float = 0.0

    @classmethod
    def measured(
        cls,
        case: int,
        photo: int,
        seed: int,
        *,
        level: dict[str, Any],
        sigmas: Sequence[float] | None,
        frames: UInt8[np.ndarray, "f h w 3"],
        image: UInt8[np.ndarray, "h w 3"],
        fps: float | int = 8.0,
        prompt: str | None = None,
        seconds: float = 0.0,
        names: Sequence[str] | None = None,
    ) -> "Made":
        """Measure `frames`, made of `image`, by the metrics `names`; None: by the usual ones of a comparison."""
        video = Video(frames, fps, image, prompt)
        run = Run(level, None if sigmas is None else tuple(sigmas), frames, video.motion, video.camera)
        return cls(case, photo, seed, run, measured(video, names or metric_names("compare")), seconds)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every video of every case. `save` makes the page."""

    cases: Sequence[Mapping[str, Any]]
    """Of each case its `label`, and how its videos were made, as plain values."""
    photos: Sequence[Mapping[str, Any]]
    """Of each photo its `file`, as plain values."""
    made: Sequence[Made]
    fps: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def summary(self, case: int) -> dict[str, Any]:
        """Means of the metrics over photos, with intervals, and of their differences to the first case."""
        found: dict[str, Any] = {}
        before = {(one.photo, one.seed): one.values for one in self.made if one.case == 0}
        for name in self.names:
            own: dict[int, list[float]] = {}
            more: dict[int, list[float]] = {}
            for one in (one for one in self.made if one.case == case):
                value, plain = one.values.get(name), before[one.photo, one.seed].get(name)
                if value is not None:
                    own.setdefault(one.photo, []).append(value)
                    if plain is not None:
                        more.setdefault(one.photo, []).append(value - plain)
            found[name] = mean_of(own).record if own else None
            found[f"{name}_more"] = mean_of(more).record if case and more else None
        return found

    @property
    def names(self) -> list[str]:
        """The metrics that at least one video has a value of."""
        return [name for name in self.made[0].values if any(one.values.get(name) is not None for one in self.made)]

    @property
    def record(self) -> dict[str, Any]:
        """All but the frames."""
        first = self.made[0].run
        f, h, w, _ = first.frames.shape
        return {
            "unleak": __version__,
            **self.about,
            "video": {"num_frames": f, "height": h, "width": w, "fps": self.fps},
            "metrics": {
                **{name: f"{metrics()[name].heading}: {metrics()[name].about}" for name in self.names},
                "estimator": first.motion.estimator,
            },
            "photos": [dict(photo) for photo in self.photos],
            "cases": [{**case, **self.summary(k)} for k, case in enumerate(self.cases)],
            "videos": [
                {
                    "case": one.case,
                    "photo": one.photo,
                    "seed": one.seed,
                    "seconds": round(one.seconds, 2),
                    **{name: one.run.record[name] for name in ("start", "sigmas", "motion", "camera")},
                    "file": self._file(one),
                    "values": dict(one.values),
                }
                for one in self.made
            ],
        }

    def _file(self, one: Made) -> str:
        label = re.sub(r"[^a-z0-9.]+", "-", self.cases[one.case]["label"].lower()).strip("-.")[:60]
        return f"photo{one.photo + 1}-seed{one.seed}-{one.case + 1}-{label}.mp4"

    def save(self, folder: str | Path, *, shown: int = 4) -> Path:
        """Write page, table, JSON and videos to `folder`, which is replaced; returns the page's path.

        The page holds the videos of the first `shown` pairs of photo and seed; the files are all there.
        """
        folder, record = Path(folder), self.record
        names = [video["file"] for video in record["videos"]]
        record["files"] = sorted([PAGE, RECORD, TABLE, *names])
        with folder_written_whole(folder) as temporary:
            for one, name in zip(self.made, names, strict=True):
                write_video(one.run.frames, temporary / name, fps=self.fps)
            places = list(dict.fromkeys((one.photo, one.seed) for one in self.made))[:shown]
            films = {
                k: (temporary / names[k]).read_bytes()
                for k, one in enumerate(self.made)
                if (one.photo, one.seed) in places
            }
            (temporary / PAGE).write_text(page(record, films), encoding="utf-8")
            (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            with (temporary / TABLE).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["case", "photo", "seed", *self.names, "seconds"])
                for one in self.made:
                    name = self.photos[one.photo]["file"].encode("utf-8", "backslashreplace").decode()
                    values = ("" if one.values.get(k) is None else one.values[k] for k in self.names)
                    writer.writerow([self.cases[one.case]["label"], name, one.seed, *values, round(one.seconds, 2)])
        return folder / PAGE
