"""What the web page can ask for: a photo animated twice or from several starts, a start for it, a model diagnosed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from unleak.animate.memory import advising
from unleak.animate.sample import Settings, initial_noise, sample, size_of
from unleak.attach.strategies.texts import parse_strategies
from unleak.core.start import Start
from unleak.data.decode_worker import Decoding
from unleak.data.image import load_image
from unleak.data.video import write_video
from unleak.study.diagnose.examine import check_examined, examine, known_clips, parse_levels, real_clips
from unleak.study.diagnose.leakage import Diagnosis, Scenes, videos_of
from unleak.study.sweep import Run, Sweep, check_measurable, parse_starts, run_all, versions
from unleak.study.tune.find import BUDGET, LEAST_FIDELITY, lowest_start, tune_settings
from unleak.study.tune.result import Fidelity, Preview, TargetMotion, Tuned
from unleak.zoo.fetch import here
from unleak.zoo.hub import check_abilities, load, pick_device
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
_DECODING = Decoding(workers=1, seconds=30.0, memory=2.0 * 2**30)

Report = Callable[[float, str], None]
"""Told the share that is done, 0 to 1, and what is being done."""


@dataclass(frozen=True)
class Wish:
    """What a visitor chose, as it came."""

    model: str
    motion: str = "medium"
    """One of `MOTIONS`, or `OWN`: `start` and `init` count."""
    start: str = ""
    init: str = "standard"
    prompt: str = ""
    seed: int = 0
    steps: int = 25
    low_pass: str = ""
    condition_noise: str = ""
    guidance_interval: str = ""
    """Other fixes, as the command line takes them; empty: without."""

    def settings(self, spec: ModelSpec, *, start: str | None = None, init: str | None = None) -> Settings:
        """Checked settings: those wished, or the same with this start and init in place of the wished ones.

        Raises ValueError for what this model cannot be asked.
        """
        if self.motion not in (*MOTIONS, OWN):
            raise ValueError(f"motion {self.motion!r} is unknown; choose {', '.join(MOTIONS)} or {OWN}")
        if (init or self.init) not in INITS:
            raise ValueError(f"init {init or self.init!r} is unknown; choose {', '.join(INITS)}")
        if not (0 <= self.seed < 2**63 and 1 <= self.steps <= MAX_STEPS):
            raise ValueError(f"give a seed from 0, and 1 to {MAX_STEPS} steps")
        if len(self.prompt) > MAX_PROMPT:
            raise ValueError(f"the prompt has {len(self.prompt)} characters; give {MAX_PROMPT} at most")
        own = start or self.motion == OWN
        if own and not (start or self.start).strip():
            raise ValueError("the start is empty; give 940, 0.94T, sigma=100 or logsnr=-5.3")
        strategies = parse_strategies(
            low_pass=self.low_pass.strip() or None,
            condition_noise=self.condition_noise.strip() or None,
            guidance_interval=self.guidance_interval.strip() or None,
        )
        return Settings.for_model(
            spec,
            start=(start or self.start) if own else None,
            init=(init or self.init) if own else None,
            motion=None if own else self.motion,
            prompt=self.prompt or None,
            seed=self.seed,
            steps=self.steps,
            strategies=strategies,
        )

    def plain(self, spec: ModelSpec) -> Settings:
        """The same video without any fix."""
        bare = replace(self, low_pass="", condition_noise="", guidance_interval="")
        return bare.settings(spec, start="1.0T", init="standard")


@dataclass(frozen=True, eq=False)
class Pair:
    """The plain video and the fixed one, and how they were made."""

    plain: Run
    fixed: Run
    fps: float
    record: Mapping[str, Any]

    def save(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write plain.mp4, fixed.mp4 and settings.json; returns their paths."""
        for name, run in (("plain", self.plain), ("fixed", self.fixed)):
            write_video(run.frames, folder / f"{name}.mp4", fps=self.fps)
        (folder / "settings.json").write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        return folder / "plain.mp4", folder / "fixed.mp4", folder / "settings.json"


class Studio:
    """The models that a server offers, and the one that is loaded, lent to one visitor at a time."""

    def __init__(self, models: Sequence[str] = (), *, device: str | None = None, offload: str = "none") -> None:
        """Offer `models`, names that `unleak models` lists; without any, those that are on this machine.

        Raises ValueError for a name that is not listed, or that does not make a video of a photo.
        """
        check_measurable()
        self.device, self._offload = pick_device(device), offload
        if unknown := [name for name in models if name not in MODELS]:
            raise ValueError(f"model {unknown[0]!r} is not listed; the page offers only what `unleak models` lists")
        self.models: dict[str, ModelSpec] = {}
        for name in dict.fromkeys(models or ("nano", *(name for name, spec in MODELS.items() if here(spec)))):
            try:
                Settings.for_model(MODELS[name])
                check_abilities(MODELS[name], device=self.device, offload=offload)
            except ValueError:
                if models:
                    raise
            else:
                self.models[name] = MODELS[name]
        self._lock = Lock()
        self._loaded: tuple[str, Any] | None = None

    def spec(self, name: str) -> ModelSpec:
        """An offered model; ValueError for any other."""
        if name not in self.models:
            raise ValueError(f"model {name!r} is not offered here; choose one of {', '.join(self.models)}")
        return self.models[name]

    def animate(self, photo: Path, wish: Wish, *, report: Report) -> Pair:
        """Animate `photo` with the plain pipeline and as wished, from the same noise, and measure both.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec = self.spec(wish.model)
        each = {"plain": wish.plain(spec), "fixed": wish.settings(spec)}
        image = load_image(photo)
        made = {}
        with self._pipeline(spec, each["fixed"], report) as pipe:
            for place, (name, settings) in enumerate(each.items()):
                noise = initial_noise(settings.init, spec, **size_of(settings))

                def on_step(done: int, of: int, name: str = name, place: int = place) -> None:
                    report((place + done / of) / 2, f"{name} video, step {done} of {of}")

                made[name] = sample(pipe, image, settings, noise, on_step=on_step)
        runs = {name: Run.measured(one.record["start"], one.record["sigmas"], one.frames) for name, one in made.items()}
        record = self._record(photo, image, spec, wish) | {
            name: one.record | {"motion": runs[name].record["motion"], "camera": runs[name].record["camera"]}
            for name, one in made.items()
        }
        return Pair(runs["plain"], runs["fixed"], each["fixed"].fps, record)

    def sweep(self, photo: Path, wish: Wish, starts: str, folder: Path, *, report: Report) -> Path:
        """Animate `photo` from several starts, and write the page of `unleak sweep` to `folder`; returns its path.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec, levels = self.spec(wish.model), parse_starts(starts)
        if len(levels) > MAX_STARTS:
            raise ValueError(f"{len(levels)} starts: give {MAX_STARTS} at most")
        each = {one: wish.settings(spec, start=str(one), init=wish.init) for one in levels}
        settings, image = each[levels[0]], load_image(photo)
        with self._pipeline(spec, settings, report) as pipe:
            noise = initial_noise(settings.init, spec, **size_of(settings))

            def make(one: Start) -> tuple[Any, Any]:
                place = levels.index(one)

                def on_step(done: int, of: int) -> None:
                    report((place + done / of) / len(levels), f"start {one}, step {done} of {of}")

                made = sample(pipe, image, each[one], noise, on_step=on_step)
                return made.frames, made.record["sigmas"]

            runs = run_all(pipe, levels, make, init=noise, mode=settings.mode, steps=settings.steps)
        about = {"title": "Motion against start", "settings": dict(settings.arguments), "init": wish.init}
        return Sweep(runs, settings.fps, self._record(photo, image, spec, wish) | about).save(folder)

    def tune(self, photo: Path, wish: Wish, target: str, *, report: Report) -> Tuned:
        """Find a start for `photo` by previews; `target` as on the command line, empty for the usual one.

        Raises ValueError, in one line, for a photo that cannot be read and for what the model cannot do.
        """
        spec = self.spec(wish.model)
        lowest, speed = lowest_start(spec), TargetMotion.parse(target) if target.strip() else None
        settings = wish.settings(spec, start=str(lowest), init=wish.init)
        image, made = load_image(photo), 0

        def on_step(what: str, done: int, of: int) -> None:
            report((made + done / of) / BUDGET, f"preview {made + 1}, start {what}, step {done} of {of}")

        def on_preview(_: Preview) -> None:
            nonlocal made
            made += 1

        with self._pipeline(spec, settings, report) as pipe:
            return tune_settings(
                pipe,
                image,
                settings,
                initial_noise(settings.init, spec, **size_of(settings)),
                target=speed,
                fidelity=Fidelity.parse(LEAST_FIDELITY),
                lowest=lowest,
                budget=BUDGET,
                on_step=on_step,
                on_preview=on_preview,
            )

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
        total = videos_of(count, starts=len(levels), seeds=seeds, oracle=photo is not None, pipeline=True)
        if total > MAX_EXAMINED:
            raise ValueError(
                f"these are {total} videos, and {MAX_EXAMINED} at most are made: give fewer clips or starts"
            )
        scenes: Scenes | None = None
        left_out = list[str]()
        if photo is not None:
            (folder / "photo").mkdir()
            load_image(photo).save(folder / "photo" / "photo.png")
            frames, scenes = known_clips(folder / "photo", settings, count=count, seed=wish.seed)
        else:
            try:
                frames = real_clips(
                    clips, settings, count=count, fps=settings.fps, decoding=_DECODING, on_skipped=left_out.append
                )
            except ValueError as error:
                raise ValueError("; ".join(left_out) or str(error)) from error
        with self._pipeline(spec, settings, report) as pipe:
            found = examine(
                pipe,
                spec,
                settings,
                frames,
                scenes=scenes,
                starts=levels,
                seeds=seeds,
                seed=wish.seed,
                fps=None if photo else settings.fps,
                on_video=lambda done, of: report(done / of, f"video {done} of {of}"),
                about={
                    "model": self._model(spec),
                    "source": "clips of known motion made of a photo" if photo else [clip.name for clip in clips],
                    "left_out": len(left_out),
                    "device": str(self.device),
                    "versions": versions(),
                },
            )
        return found, found.save(folder / "diagnosis").parent

    @contextmanager
    def _pipeline(self, spec: ModelSpec, settings: Settings, report: Report) -> Iterator[Any]:
        with self._lock, advising(spec, settings, self.device, offload=self._offload, vae_tiling=False):
            if self._loaded is None or self._loaded[0] != spec.name:
                self._loaded = None  # its memory goes before the next one's is taken
                report(0, f"loading {spec.name}")
                pipe = load(spec, device=self.device, offload=self._offload, say=lambda text: report(0, text))
                pipe.set_progress_bar_config(disable=True)
                self._loaded = spec.name, pipe
            yield self._loaded[1]

    def _record(self, photo: Path, image: Image.Image, spec: ModelSpec, wish: Wish) -> dict[str, Any]:
        digest = hashlib.sha256(photo.read_bytes()).hexdigest()
        return {
            "photo": {"file": photo.name, "sha256": digest, "size": list(image.size), "notes": image.info["notes"]},
            "model": self._model(spec),
            "seed": wish.seed,
            "mode": "rescale",
            "device": str(self.device),
            "versions": versions(),
        }

    def _model(self, spec: ModelSpec) -> dict[str, Any]:
        source = Path(spec.source).name if Path(spec.source).is_absolute() else spec.source  # no visitor's business
        return {"name": spec.name, "source": source, "revision": spec.revision, "pipeline": spec.pipeline}
