"""Fixes and models side by side on the same photos and the same noise: what `unleak compare` does."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from unleak.animate.call import Call
from unleak.animate.model import Loading, Model
from unleak.animate.noise import check_init
from unleak.animate.record import Photo, versions
from unleak.animate.request import Guidance, Request
from unleak.animate.sample import check_mask, sample
from unleak.animate.settings import Settings
from unleak.core.start import Start
from unleak.data.lists import Entry, find_entries
from unleak.data.mask import load_mask
from unleak.measure.registry import metric_names
from unleak.study.compare.cases import Case, cases_of
from unleak.study.compare.result import Comparison, Made
from unleak.study.listener import Listener
from unleak.study.sweep import check_measurable
from unleak.study.verdict import as_shown
from unleak.zoo.classes import pipeline_class
from unleak.zoo.hub import pick_device
from unleak.zoo.lora import Lora
from unleak.zoo.registry import ModelSpec, find_model

__all__ = ["Plan", "compare", "plan"]


@dataclass(frozen=True)
class Shot:
    """A photo that every case animates."""

    entry: Entry
    photo: Photo
    prompt: str | None
    mask_file: Path | None
    mask: Image.Image | None

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        given = {"prompt": self.prompt, "mask": None if self.mask_file is None else str(self.mask_file)}
        return self.photo.record | {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Planned:
    """A case that was checked."""

    case: Case
    spec: ModelSpec
    settings: Settings
    loading: Loading
    reads: bool
    """Whether its model takes prompts."""

    @property
    def loaded(self) -> tuple[Any, ...]:
        """Return what is loaded for it: cases that agree share a pipeline. Two folders may share a name."""
        return self.spec.source, self.spec.revision, self.spec.name, self.loading

    @property
    def record(self) -> dict[str, Any]:
        """Return how its videos are made, as plain values."""
        return {
            "label": self.case.label,
            "model": {"name": self.spec.name, "source": self.spec.source, "revision": self.spec.revision},
            "start": str(self.settings.start or f"motion {self.settings.motion}"),
            "level": self.settings.level(self.spec)["text"],
            "init": self.settings.init,
            "mode": self.settings.mode,
            "strategies": [repr(one) for one in self.settings.strategies],
            **self.loading.record,
            "arguments": dict(self.settings.arguments),
        }


@dataclass(frozen=True)
class Plan:
    """A comparison that was checked; `run` makes it."""

    cases: list[Planned]
    shots: list[Shot]
    seed: int
    seeds: int
    names: tuple[str, ...]
    """The metrics to measure."""
    device: Any
    model: Any = None
    """The loaded pipeline of the cases that name no model, where one was given."""

    @property
    def title(self) -> str:
        """Return what the page is called."""
        count = f"{len(self.cases)} ways compared"
        name = self.shots[0].entry.photo.name
        return f"{name}: {count}" if len(self.shots) == 1 else f"{len(self.shots)} photos: {count}"

    def run(self, listener: Listener | None = None, about: Mapping[str, Any] | None = None) -> Comparison:
        """Make and measure every video; a pipeline is loaded once for all cases that use it."""
        listener, made = listener or Listener(), list[Made]()
        total = len(self.cases) * len(self.shots) * self.seeds
        listener.progress(0, total, "videos")
        for loaded in dict.fromkeys(one.loaded for one in self.cases):
            group = [(k, one) for k, one in enumerate(self.cases) if one.loaded == loaded]
            first = group[0][1]
            with first.loading.advising(first.spec, first.settings, self.device):
                own = first.case.model is None and self.model is not None
                source = self.model if own else first.spec
                model = Model.given_or_loaded(source, first.spec, first.loading, device=self.device, say=listener.note)
                for k, one in group:
                    for video in self._of_case(model, k, one):
                        made.append(video)
                        listener.progress(len(made), total, "videos")
            del model
        made.sort(key=lambda one: (one.photo, one.seed, one.case))
        known = {
            "title": self.title,
            "seed": self.seed,
            "seeds": self.seeds,
            "device": str(self.device),
            "versions": versions(),
        }
        cases, photos = [one.record for one in self.cases], [shot.record for shot in self.shots]
        return Comparison(cases, photos, made, self.cases[0].settings.fps, {**known, **(about or {})})

    def _of_case(self, model: Model, number: int, one: Planned) -> Iterable[Made]:
        noise = model.noise(one.settings)
        for photo, shot in enumerate(self.shots):
            settings = one.settings.prompted(shot.prompt if one.reads else None)
            first = self.seed + (shot.entry.seed or 0)
            for seed in range(first, first + self.seeds):
                began = time.monotonic()
                video = sample(model.pipe, shot.photo.image, replace(settings, seed=seed), noise, mask=shot.mask)
                yield Made.measured(
                    number,
                    photo,
                    seed,
                    level=video.record["start"],
                    sigmas=video.record["sigmas"],
                    frames=video.frames,
                    image=as_shown(shot.photo.image, video.frames),
                    fps=settings.fps,
                    prompt=shot.prompt,
                    seconds=time.monotonic() - began,
                    names=self.names,
                )


def compare(photos: str | Path | Sequence[str | Path], cases: Sequence[Case | str] = (), **asked: Any) -> Comparison:
    """Animate photos in several ways with the same noise, and measure every video.

    photos: files, folders, patterns or lists. cases: texts such as "both: start=sigma=100 init=analytic", as
    `unleak compare --case` takes them. asked: see `plan`; and `listener`, `about` as `Plan.run` takes them.

        done = unleak.compare("photo.jpg", ["plain: start=1.0T", "fixed: start=0.9T"], model="svd")
        done.save("out/comparison")

    Raises ValueError, before a model is loaded, for what cannot be had. Needs `pip install 'unleak[evaluate]'`.
    """
    ran = {name: asked.pop(name) for name in ("listener", "about") if name in asked}
    return plan([photos] if isinstance(photos, str | Path) else photos, cases, **asked).run(**ran)


def plan(
    photos: Sequence[str | Path],
    cases: Sequence[Case | str] = (),
    *,
    model: Any = "nano",
    start: str | None = None,
    models: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    metrics: Sequence[str] | None = None,
    prompts: Sequence[str | None] | None = None,
    mask: str | Path | None = None,
    allow_outside: bool = False,
    loading: Loading | None = None,
    listener: Listener | None = None,
    request: Request | None = None,
    **asked: Any,
) -> Plan:
    """Check a comparison; nothing is loaded.

    model: of the cases that name none: a name, a folder, a Hub id, or a loaded pipeline.
    start, models: a case for each start, or model, in a text with commas. Without any case: plain, the recommended
    start, the same with Analytic-Init, and the rivals that the model allows.
    seed: of the first noise, the same for every case. seeds: number of noises for each photo.
    metrics: names of `unleak.measure.registry`; None: the usual ones.
    prompts: one for each photo, None for a photo without; without `prompts`, lists and folders bring their own.
    mask: a picture that is white where things move, for models that take one.
    loading: device, dtype, offloading, and LoRAs that every case has.
    request, or its fields as keywords: what is asked of the videos (`num_frames`, `steps`, `prompt`, ...).

    Raises ValueError for what cannot be had.
    """
    listener, loading, request = listener or Listener(), loading or Loading(), request or Request.of(**asked)
    given = prompts is not None or request.prompt is not None
    entries = find_entries(photos, allow_outside=allow_outside, prompt_folders=not given)
    texts = [entry.prompt for entry in entries] if prompts is None else list(prompts)
    shots = [_shot(entry, text, mask) for entry, text in zip(entries, texts, strict=True)]
    if seed + seeds + max(entry.seed or 0 for entry in entries) > 2**63:
        raise ValueError(f"--seed {seed} and {seeds} noises go beyond 2^63; give a lower --seed")
    check_measurable()
    names = metric_names("compare") if metrics is None else tuple(metrics)
    picked, spec = pick_device(loading.device), find_model(model)
    asked_for = replace(request, seed=seed, prompt=next((text for text in texts if text is not None), request.prompt))
    planned = [
        _planned(one, find_model(one.model) if one.model else spec, asked_for, loading, shots, picked)
        for one in cases_of(spec, cases, start=start, models=models)
    ]
    _check_alike(planned)
    if given or any(text is not None for text in texts):
        deaf = [one.case.label for one in planned if not one.reads]
        if given and len(deaf) == len(planned):
            option = "prompt" if request.prompt is not None else "prompts"
            raise ValueError(f"--{option}: {planned[0].spec.name} reads no prompts")
        if deaf:
            listener.note(f"no prompts are read by the models of: {', '.join(deaf)}")
    given_pipe = None if isinstance(model, str | Path | ModelSpec) else model
    return Plan(planned, shots, seed, seeds, names, picked, given_pipe)


def _shot(entry: Entry, prompt: str | None, mask: str | Path | None) -> Shot:
    file = entry.mask or (None if mask is None else Path(mask))
    return Shot(entry, Photo.read(entry.photo), prompt, file, None if file is None else load_mask(file))


def _planned(
    case: Case, spec: ModelSpec, request: Request, loading: Loading, shots: Sequence[Shot], device: Any
) -> Planned:
    call = Call.of(pipeline_class(spec.pipeline))
    reads = call.name("prompt") is not None
    own: dict[str, Any] = {
        "prompt": request.prompt if reads else None,
        "guidance": Guidance.parse(case.guidance) if case.guidance else request.guidance,
        "steps": case.steps or request.steps,
        "start": Start.parse(case.start) if case.start else None if case.motion else Start.fraction(1.0),
        "motion": case.motion,
        "init": case.init,
        "mode": case.mode,
        "strategies": case.strategies,
    }
    settings = Settings.for_model(spec, replace(request, **own))
    check_init(settings, spec)
    for shot in shots:
        if shot.mask is not None:
            check_mask(call, shot.mask, shot.photo.image)
    how = replace(loading, loras=(*loading.loras, *(Lora.parse(text) for text in case.loras)))
    how.check(spec, device)
    return Planned(case, spec, settings, how, reads)


def _check_alike(planned: Sequence[Planned]) -> None:
    """Raise ValueError if the videos of the cases would not play side by side."""
    for name in ("num_frames", "fps"):
        found = {one.case.label: getattr(one.settings, name) for one in planned}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{label}: {value}" for label, value in found.items())
            raise ValueError(
                f"the videos of the cases differ in {name} ({said}) and would not play side by side; give"
                f" --{name.replace('_', '-')}"
            )
