"""What the web page can ask for: a photo animated twice or from several starts, a start for it, a model diagnosed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from unleak.animate.cautions import cautions_of
from unleak.animate.model import Loading, Model
from unleak.animate.record import Photo, asked, provenance, public
from unleak.animate.request import Request
from unleak.animate.sample import sample
from unleak.animate.settings import Settings, settings_of_starts
from unleak.attach.strategies import parse_fixes
from unleak.core.start import Start
from unleak.data.decode_worker import Decoding, read_photo
from unleak.data.video import write_video
from unleak.study.attempt import Attempt, try_photo
from unleak.study.compare.result import Made
from unleak.study.diagnose.examine import Effort, check_examined, examine, known_clips, parse_levels, real_clips
from unleak.study.diagnose.leakage import Diagnosis, Scenes
from unleak.study.listener import Listener
from unleak.study.sweep import check_measurable, parse_starts, sweep_photo
from unleak.study.tune.find import Search, lowest_start, tune_photo
from unleak.study.tune.goal import TargetMotion
from unleak.study.tune.result import Preview, Tuned
from unleak.study.verdict import as_shown, verdict
from unleak.zoo.fetch import here
from unleak.zoo.hub import pick_device
from unleak.zoo.registry import MODELS, ModelSpec

__all__ = [
    "INITS",
    "MAX_CLIPS",
    "MAX_PROMPT",
    "MAX_SEEDS",
    "MAX_STARTS",
    "MAX_STEPS",
    "MOTIONS",
    "OWN",
    "TRIES",
    "Pair",
    "Studio",
    "Wish",
]

MOTIONS = ("low", "medium", "high")
OWN = "own"
INITS = ("standard", "unit", "analytic")
"""Not a moments file or a Hub id, as on the command line: a visitor names no files."""
MAX_STEPS, MAX_STARTS, MAX_PROMPT = 100, 8, 2000
MAX_CLIPS, MAX_SEEDS, MAX_EXAMINED = 16, 4, 600
"""Of a diagnosis: clips, noises for each, and videos in all."""
TRIES = 5
"""Videos that are tried until one moves, beside the plain one."""
_DECODING = Decoding(workers=1, seconds=30.0, memory=2.0 * 2**30)

Report = Callable[[float, str], None]
"""Told the share that is done, 0 to 1, and what is being done."""


@dataclass(frozen=True)
class Wish:
    """What a visitor chose, as the page sent it."""

    model: str
    motion: str = "medium"
    """One of `MOTIONS`, or `OWN`: then `start` and `init` count."""
    start: str = ""
    init: str = "standard"
    prompt: str = ""
    seed: int = 0
    steps: int = 25
    others: tuple[str, ...] = ()
    """Arguments of the model's own, as `NAME=VALUE`."""
    fixes: tuple[str, ...] = ()
    """Other fixes, each as the command line takes it: `low-pass=0.25:0.1`."""

    def request(self) -> Request:
        """Return what is asked of the fixed video; ValueError for more than the page allows."""
        if self.motion not in (*MOTIONS, OWN):
            raise ValueError(f"motion {self.motion!r} is unknown; choose {', '.join(MOTIONS)} or {OWN}")
        if self.init not in INITS:
            raise ValueError(f"init {self.init!r} is unknown; choose {', '.join(INITS)}")
        if not (0 <= self.seed < 2**63 and 1 <= self.steps <= MAX_STEPS):
            raise ValueError(f"give a seed from 0, and 1 to {MAX_STEPS} steps")
        if len(self.prompt) > MAX_PROMPT:
            raise ValueError(f"the prompt has {len(self.prompt)} characters; give {MAX_PROMPT} at most")
        if self.motion == OWN and not self.start.strip():
            raise ValueError("the start is empty; give 940, 0.94T, sigma=100 or logsnr=-5.3")
        own = {"start": self.start, "init": self.init} if self.motion == OWN else {"motion": self.motion}
        return Request.of(
            **own,
            prompt=self.prompt or None,
            seed=self.seed,
            steps=self.steps,
            others=self.others,
            strategies=parse_fixes(self.fixes),
        )

    def settings(self, spec: ModelSpec) -> Settings:
        """Return the settings of the fixed video; ValueError for what this model cannot be asked."""
        return Settings.for_model(spec, self.request())

    def plain(self, spec: ModelSpec) -> Settings:
        """Return the settings of the same video without any fix."""
        plain = replace(self.request(), start=Start.fraction(1.0), motion=None, init="standard", strategies=())
        return Settings.for_model(spec, plain)

    def at(self, spec: ModelSpec, starts: Sequence[Start]) -> dict[Start, Settings]:
        """Return the settings of the same video from each of `starts`."""
        init = self.init if self.motion == OWN else None
        return settings_of_starts(spec, replace(self.request(), start=None, motion=None, init=init), starts)


@dataclass(frozen=True, eq=False)
class Pair:
    """The plain video and the fixed one, and how they were made."""

    plain: Made
    fixed: Made
    fps: float
    record: Mapping[str, Any]
    still: bool
    """Whether the fixed video came out still all the same."""
    cautions: tuple[str, ...] = ()
    """What a person should know of how they were made."""

    def save(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write plain.mp4, fixed.mp4 and settings.json; returns their paths."""
        for name, made in (("plain", self.plain), ("fixed", self.fixed)):
            write_video(made.run.frames, folder / f"{name}.mp4", fps=self.fps)
        (folder / "settings.json").write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        return folder / "plain.mp4", folder / "fixed.mp4", folder / "settings.json"


class _Heard(Listener):
    """Keep what failed, and report progress."""

    def __init__(self, report: Report) -> None:
        self.failures, self._report = list[str](), report

    def failure(self, text: str) -> None:
        self.failures.append(text)

    def progress(self, done: int, total: int, what: str) -> None:
        self._report(done / total, f"{done} of {total} {what}")


class Studio:
    """The models that a server offers, and the one that is loaded, lent to one visitor at a time."""

    def __init__(self, models: Sequence[str] = (), *, device: str | None = None, offload: str = "none") -> None:
        """Offer `models`, names that `unleak models` lists; without any, those that are on this machine.

        Raises ValueError for a name that is not listed, or that does not make a video of a photo.
        """
        check_measurable()
        self.device = pick_device(device)
        self._loading = Loading(str(self.device), offload=offload)
        if unknown := [name for name in models if name not in MODELS]:
            raise ValueError(f"model {unknown[0]!r} is not listed; the page offers only what `unleak models` lists")
        self.models: dict[str, ModelSpec] = {}
        for name in dict.fromkeys(models or ("nano", *(name for name, spec in MODELS.items() if here(spec)))):
            try:
                Settings.for_model(MODELS[name])
                self._loading.check(MODELS[name], self.device)
            except ValueError:
                if models:
                    raise
            else:
                self.models[name] = MODELS[name]
        self._lock = Lock()
        self._loaded: Model | None = None

    def spec(self, name: str) -> ModelSpec:
        """Return an offered model; ValueError for any other."""
        if name not in self.models:
            raise ValueError(f"model {name!r} is not offered here; choose one of {', '.join(self.models)}")
        return self.models[name]

    def animate(self, photo: Path, wish: Wish, *, report: Report) -> Pair:
        """Animate `photo` with the plain model and as wished, from the same noise, and measure both.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec = self.spec(wish.model)
        each = {"plain": wish.plain(spec), "fixed": wish.settings(spec)}
        picture, made = Photo(photo, read_photo(photo, decoding=_DECODING)), {}
        with self._model(spec, report) as model, model.advising(each["fixed"]), cautions_of() as cautions:
            for place, (name, settings) in enumerate(each.items()):

                def on_step(done: int, of: int, name: str = name, place: int = place) -> None:
                    report((place + done / of) / 2, f"{name} video, step {done} of {of}")

                made[name] = sample(model.pipe, picture.image, settings, model.noise(settings), on_step=on_step)
            record = self._record(model, picture)
        fps, seen = each["fixed"].fps, {}
        for place, (name, one) in enumerate(made.items()):
            seen[name] = Made.measured(
                place,
                0,
                wish.seed,
                level=one.record["start"],
                sigmas=one.record["sigmas"],
                frames=one.frames,
                image=as_shown(picture.image, one.frames),
                fps=fps,
                prompt=wish.prompt or None,
            )
        fixed = seen["fixed"].run
        still = verdict(fixed.frames, picture.image, fps=fps, motion=fixed.motion).still
        record |= asked(each["fixed"]) | {
            name: one.record
            | {part: seen[name].run.record[part] for part in ("motion", "camera")}
            | {"values": dict(seen[name].values)}
            for name, one in made.items()
        }
        return Pair(seen["plain"], seen["fixed"], fps, public(record), still, tuple(cautions))

    def attempt(self, photo: Path, wish: Wish, folder: Path, *, report: Report) -> tuple[Attempt, Path, list[str]]:
        """Do what `unleak try` does: several seeds and starts, the best video kept.

        Returns what was found, the page of all in `folder`, and what a person should know of how they were made.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec = self.spec(wish.model)
        settings, picture = wish.settings(spec), Photo.read(photo)

        def on_step(number: int, done: int, of: int) -> None:
            report((number + done / of) / (TRIES + 1), f"video {number} of {TRIES}, step {done} of {of}")

        with self._model(spec, report) as model, cautions_of() as cautions:
            about = {"title": "What was tried", **self._record(model, picture)}
            found = try_photo(model, picture, settings, budget=TRIES, about=about, on_step=on_step)
        return found, found.save(folder), cautions

    def sweep(self, photo: Path, wish: Wish, starts: str, folder: Path, *, report: Report) -> tuple[Path, list[str]]:
        """Animate `photo` from several starts, and write the page of `unleak sweep` to `folder`.

        Returns its path, and what a person should know of how the videos were made.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec, levels = self.spec(wish.model), parse_starts(starts)
        if len(levels) > MAX_STARTS:
            raise ValueError(f"{len(levels)} starts: give {MAX_STARTS} at most")
        each, picture = wish.at(spec, levels), Photo(photo, read_photo(photo, decoding=_DECODING))

        def on_step(start: Start, done: int, of: int) -> None:
            place = levels.index(start)
            report((place + done / of) / len(levels), f"start {start}, step {done} of {of}")

        with self._model(spec, report) as model, cautions_of() as cautions:
            about = {"title": "Motion against start", **self._record(model, picture)}
            page = sweep_photo(model, picture, each, about=about, on_step=on_step).save(folder)
        return page, cautions

    def tune(self, photo: Path, wish: Wish, target: str, *, report: Report) -> tuple[Tuned, list[str]]:
        """Find a start for `photo` by previews; `target` as on the command line, empty for the usual one.

        Returns what was found, and what a person should know of how the previews were made.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec = self.spec(wish.model)
        search = Search(lowest_start(spec), TargetMotion.parse(target) if target.strip() else None)
        settings = wish.at(spec, [search.lowest])[search.lowest]
        picture, made = Photo(photo, read_photo(photo, decoding=_DECODING)), 0

        def on_step(what: str, done: int, of: int) -> None:
            report((made + done / of) / search.budget, f"preview {made + 1}, start {what}, step {done} of {of}")

        def on_preview(_: Preview) -> None:
            nonlocal made
            made += 1

        with self._model(spec, report) as model, cautions_of() as cautions:
            found = tune_photo(model, picture, settings, search, on_step=on_step, on_preview=on_preview)
        return found, cautions

    def diagnose(
        self,
        clips: Sequence[Path],
        photo: Path | None,
        wish: Wish,
        *,
        starts: str,
        count: int,
        seeds: int,
        folder: Path,
        report: Report,
    ) -> tuple[Diagnosis, Path]:
        """Diagnose the model on uploaded `clips`, or on `count` clips of known motion made of `photo`.

        Returns what was found, and the folder below `folder` that holds it. Raises ValueError, in one line, for clips
        that cannot be read or do not move, for a model without a denoiser view, and for more than is offered.
        """
        spec = self.spec(wish.model)
        settings = wish.plain(spec)
        check_examined(spec, settings)
        levels = parse_levels(starts, spec)
        count = count if photo else len(clips)
        if len(levels) > MAX_STARTS or not (1 <= count <= MAX_CLIPS and 1 <= seeds <= MAX_SEEDS):
            raise ValueError(
                f"give 1 to {MAX_CLIPS} clips, 1 to {MAX_SEEDS} noises for each, {MAX_STARTS} starts at most"
            )
        effort = Effort(count, seeds, levels)
        total = effort.videos(count, oracle=photo is not None)
        if total > MAX_EXAMINED:
            raise ValueError(
                f"these are {total} videos, and {MAX_EXAMINED} at most are made: give fewer clips or starts"
            )
        scenes: Scenes | None = None
        heard = _Heard(report)
        if photo is not None:
            (folder / "photo").mkdir()
            read_photo(photo, decoding=_DECODING).save(folder / "photo" / "photo.png")
            frames, scenes = known_clips(folder / "photo", settings, count=count, seed=wish.seed)
        else:
            try:
                frames = real_clips(clips, settings, count=count, fps=settings.fps, decoding=_DECODING, listener=heard)
            except ValueError as error:
                raise ValueError("; ".join(heard.failures) or str(error)) from error
        with self._model(spec, report) as model, model.advising(settings):
            found = examine(
                model.pipe,
                spec,
                settings,
                frames,
                effort=effort,
                scenes=scenes,
                seed=wish.seed,
                fps=None if photo else settings.fps,
                listener=heard,
                about={
                    **public(provenance(model)),
                    "source": "clips of known motion made of a photo" if photo else [clip.name for clip in clips],
                    "left_out": len(heard.failures),
                },
            )
        return found, found.save(folder / "diagnosis").parent

    @contextmanager
    def _model(self, spec: ModelSpec, report: Report) -> Iterator[Model]:
        """Lend the model to one visitor at a time; the one that was loaded before gives its memory back first."""
        with self._lock:
            if self._loaded is None or self._loaded.spec.name != spec.name:
                self._loaded = None
                report(0, f"loading {spec.name}")
                with self._loading.advising(spec, Settings.for_model(spec), self.device):
                    self._loaded = Model.load(spec, self._loading, device=self.device, say=lambda text: report(0, text))
            yield self._loaded

    def _record(self, model: Model, photo: Photo) -> dict[str, Any]:
        """Say how a video was made, without the places of files, which are no visitor's business."""
        record: dict[str, Any] = public(provenance(model, photo))
        return record
