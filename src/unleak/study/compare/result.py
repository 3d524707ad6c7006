"""What a comparison found: every video of every case, measured, as a page, a table and JSON."""

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
from unleak.data.atomic import folder_written_whole
from unleak.data.video import write_video
from unleak.measure.intervals import mean_of
from unleak.measure.registry import measured, metric_names, metrics
from unleak.measure.video import Video
from unleak.report.compare_page import page
from unleak.study.sweep import Run

__all__ = ["PAGE", "RECORD", "Comparison", "Made"]

PAGE, RECORD, TABLE = "index.html", "compare.json", "compare.csv"


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
    """Every video of every case. `save` writes a page."""

    cases: Sequence[Mapping[str, Any]]
    """Of each case its `label`, and how its videos were made, as plain values."""
    photos: Sequence[Mapping[str, Any]]
    """Of each photo its `file`, as plain values."""
    made: Sequence[Made]
    fps: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def summary(self, case: int) -> dict[str, Any]:
        """Return the mean of each metric over photos, with its interval, and of its difference to the first case."""
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
        """Return the metrics that at least one video has a value of."""
        return [name for name in self.made[0].values if any(one.values.get(name) is not None for one in self.made)]

    @property
    def record(self) -> dict[str, Any]:
        """Return everything but the frames, as plain values."""
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
        """Write a page, a table, JSON and the videos to `folder`, which is replaced; returns the path of the page.

        The page holds the videos of the first `shown` pairs of photo and seed; the files hold all of them.
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
