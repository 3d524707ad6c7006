"""All that decides a video besides the model and the photo: what is asked, checked against the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from unleak.animate.call import Call
from unleak.animate.request import Guidance, Request
from unleak.attach.motion import in_words, with_fixes_of
from unleak.attach.plan import Strategy
from unleak.attach.schedule import keeps_its_levels, nearest, process_of
from unleak.core.grid import FEW_STEPS, few_steps
from unleak.core.start import Start, describe
from unleak.families.registry import families
from unleak.zoo.classes import pipeline_class, scheduler_from, seam_of_class
from unleak.zoo.registry import ModelSpec

__all__ = ["Settings", "motion_in_words", "presets", "reads_prompts", "settings_of_starts"]


@dataclass(frozen=True)
class Settings:
    """All that decides a video besides the model and the photo."""

    arguments: Mapping[str, Any]
    """Every plain argument of the pipeline's call by its own name; None: the pipeline decides while it runs."""
    fps: float
    """Of the video, in Hz."""
    start: Start | None
    init: str
    """`standard`, `unit`, `analytic` (the model's own moments), or a moments file, folder or Hub id."""
    mode: str
    motion: str | None
    seed: int
    strategies: tuple[Strategy, ...] = ()

    @classmethod
    def for_model(cls, spec: ModelSpec, request: Request | None = None, **asked: Any) -> "Settings":
        """Take the defaults of a model, and what `request` (or the same as keywords) asks in place of them.

        Without `start` and `motion` the model's recommended fix is chosen: the `medium` of its family, unless the model
        has its own. A given `start` comes with the `standard` initial noise, so that 1.0T is the plain pipeline.

        Raises ValueError for what this pipeline cannot be asked, a size or a number of frames that the network cannot
        take, a start outside its noise process (where its configuration is known), and a strategy that its structure
        does not allow.
        """
        asks = request or Request.of(**asked)
        call = Call.of(pipeline_class(spec.pipeline))
        if "image" not in call.names or call.names & _MORE_THAN_A_PHOTO:
            raise ValueError(
                f"a {spec.pipeline} takes more than a photo; call it from Python, after unleak.apply(pipe)"
            )
        arguments = _arguments(call, spec, asks)
        recommended = asks.start is None and asks.motion is None
        takes_rate = call.name("fps")
        playback = asks.fps or spec.fps or (arguments[takes_rate] if takes_rate else None) or 16
        few = _few_steps(spec, asks.mode, arguments)
        motion = asks.motion or ("medium" if recommended and few else None)
        strategies = tuple(asks.strategies)
        if not few and spec.motion_starts is None:  # in few steps the call says what the preset is
            strategies = with_fixes_of(seam_of_class(pipeline_class(spec.pipeline)), motion, strategies)
        settings = cls(
            arguments,
            fps=float(playback),
            start=_recommended(spec) if recommended and motion is None else asks.start,
            init=asks.init or (spec.init if asks.start is None else "standard"),
            mode=asks.mode,
            motion=motion,
            seed=asks.seed,
            strategies=strategies,
        )
        pipeline, scheduler = pipeline_class(spec.pipeline), scheduler_from(spec.scheduler)
        for strategy in settings.strategies:
            strategy.fits(pipeline, seam_of_class(pipeline), process_of(scheduler) if scheduler else None)
        if settings.height and settings.width:
            spec.check_size(settings.height, settings.width)
        if settings.num_frames:
            spec.check_frames(settings.num_frames)
        settings.level(spec)
        return settings

    @property
    def height(self) -> int | None:
        """Pixels; None where the pipeline takes it from the photo."""
        return self.arguments.get("height")

    @property
    def width(self) -> int | None:
        """Pixels; None where the pipeline takes it from the photo."""
        return self.arguments.get("width")

    @property
    def num_frames(self) -> int | None:
        """Return the frames of the video; None where the pipeline decides."""
        return self.arguments.get("num_frames", self.arguments.get("frames"))

    @property
    def size_text(self) -> str:
        """Say how many frames, and how large."""
        frames = f"{self.num_frames} frames" if self.num_frames else "frames as the pipeline decides"
        return frames + (f" of {self.width}x{self.height}" if self.width and self.height else ", sized by the photo")

    @property
    def start_text(self) -> str:
        """Return the start in one unit, the one it was given in."""
        if self.motion:
            return f"motion {self.motion}"
        if self.start is None:
            return "no fix is known for this model yet, so this is the plain one; give --start"
        plain = ", the plain model" if self.start == Start.fraction(1.0) and not self.strategies else ""
        return "start " + str(self.start).replace("=", " ") + plain

    @property
    def steps(self) -> int:
        """Denoising steps asked for."""
        return int(self.arguments["num_inference_steps"])

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        start = None if self.start is None else str(self.start)
        strategies = [repr(one) for one in self.strategies]
        return {**vars(self), "arguments": dict(self.arguments), "start": start, "strategies": strategies}

    def caution(self, spec: ModelSpec) -> str | None:
        """Say what is likely to disappoint: more frames than the model is made for. None where nothing is."""
        made_for = spec.defaults.get("num_frames") or Call.of(pipeline_class(spec.pipeline)).default("num_frames")
        if not made_for or not self.num_frames or self.num_frames <= made_for:
            return None
        return f"{self.num_frames} frames: {spec.name} is made for {made_for}; longer videos may repeat, blur or stop"

    def prompted(self, prompt: str | None) -> "Settings":
        """Return the same settings for a photo with a prompt of its own (None: as it is)."""
        return self if prompt is None else replace(self, arguments={**self.arguments, "prompt": prompt})

    def level(self, spec: ModelSpec) -> dict[str, Any]:
        """Return the start in every unit, before the model is loaded; `text` alone where that cannot be known yet."""
        scheduler = scheduler_from(spec.scheduler)
        if scheduler is None:
            return {"text": "known once the model is loaded"}
        start = self.start or (presets(spec).get(self.motion) if self.motion else Start.fraction(1.0))
        if start is None:
            known = ", ".join(presets(spec)) or "none of these"
            raise ValueError(f"motion {self.motion!r}: {spec.name} has {known}; give --start instead")
        process = process_of(scheduler)
        if start.unit == "step":
            return {"text": f"the level that the schedule has after {start.steps_left_out} steps, which are left out"}
        return describe(nearest(scheduler, start.resolve(process)), process)


# Arguments without which the pipelines that have them cannot run: a face, a motion to follow.
_MORE_THAN_A_PHOTO = frozenset({"id_cond", "pose_video", "control_video", "controls"})


def _arguments(call: Call, spec: ModelSpec, asks: Request) -> dict[str, Any]:
    """Return the plain arguments of the pipeline's call: its own defaults, then the model's, then what is asked."""
    arguments = {name: parameter.default for name, parameter in call.parameters.items()}
    arguments |= {name: value for name, value in spec.defaults.items() if name in arguments}
    given = {
        "height": ("size", asks.height),
        "width": ("size", asks.width),
        "num_frames": ("num-frames", asks.num_frames),
        "steps": ("steps", asks.steps),
        "noise_aug": ("noise-aug", asks.noise_aug_strength),
        "prompt": ("prompt", asks.prompt),
        "negative_prompt": ("negative-prompt", asks.negative_prompt),
    }
    for option, (flag, value) in given.items():
        if value is not None:
            arguments[call.need(option, flag)] = value
    if asks.guidance is not None:
        arguments |= _guidance(call, asks.guidance)
    rate = call.name("fps")
    if asks.fps is not None and rate is not None:
        arguments[rate] = call.parameters[rate].parse(f"{asks.fps:g}")
    if call.name("prompt") and arguments["prompt"] is None:
        arguments["prompt"] = ""
    for text in asks.others:
        name, value = call.set(text)
        if sum(other.partition("=")[0] == name for other in asks.others) > 1:
            raise ValueError(f"--set {text}: {name} is given twice")
        arguments[name] = value
    if asks.negative_prompt:
        _check_guided(arguments)
    for argument in (one for family in families() for one in family.arguments if one.name in arguments):
        argument.check(arguments[argument.name])
    return arguments


def _guidance(call: Call, asked: Guidance) -> dict[str, float]:
    """Return the guidance scales under the names that this pipeline has for them."""
    if asked.experts:
        if "guidance_scale_2" not in call.parameters:
            raise ValueError(f"--guidance {asked}: a {call.pipeline} has one denoiser, no experts; give one number")
        return {"guidance_scale": asked.first, "guidance_scale_2": asked.last}
    if call.name("min_guidance"):
        return {"min_guidance_scale": asked.first, "max_guidance_scale": asked.last}
    if asked.first != asked.last:
        raise ValueError(f"--guidance {asked}: a {call.pipeline} has one guidance for all frames; give {asked.last:g}")
    return {call.need("guidance", "guidance"): asked.first}


def _check_guided(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError if a negative prompt would have no effect: pipelines read it where their scale exceeds 1."""
    scale = next((name for name in ("true_cfg_scale", "guidance_scale") if name in arguments), None)
    if scale is not None and arguments[scale] is not None and arguments[scale] <= 1:
        how = "--guidance" if scale == "guidance_scale" else f"--set {scale}="
        raise ValueError(
            f"--negative-prompt has no effect at {scale} {arguments[scale]:g}; raise it above 1 with {how}"
        )


def settings_of_starts(spec: ModelSpec, request: Request, starts: Iterable[Start]) -> dict[Start, Settings]:
    """Make the settings of every start of a study, which differ in nothing else.

    The initial noise is that of `request`, or the one recommended for the model.
    """
    asked = replace(request, init=request.init or spec.init)
    found: dict[Start, Settings] = {}
    for start in starts:
        if found:
            found[start] = replace(next(iter(found.values())), start=start)
            found[start].level(spec)  # ValueError if it lies outside the noise process
        else:
            found[start] = Settings.for_model(spec, replace(asked, start=start))
    return found


def reads_prompts(spec: ModelSpec) -> bool:
    """Return whether the model reads a prompt."""
    return Call.of(pipeline_class(spec.pipeline)).name("prompt") is not None


def presets(spec: ModelSpec) -> Mapping[str, Start]:
    """Return the starts of `low`, `medium` and `high` for a model, those that are known."""
    if spec.motion_starts is not None:
        return {name: Start.parse(text) for name, text in spec.motion_starts.items()}
    return seam_of_class(pipeline_class(spec.pipeline)).motion


def motion_in_words(spec: ModelSpec) -> dict[str, str]:
    """Return what `low`, `medium` and `high` are for a model, in words."""
    pipeline, scheduler = pipeline_class(spec.pipeline), scheduler_from(spec.scheduler)
    seam = seam_of_class(pipeline)
    own = spec.motion_starts is not None
    told: dict[str, str] = {}
    for name, start in presets(spec).items():
        few = start.unit == "log_snr" if scheduler is None else keeps_its_levels(scheduler, FEW_STEPS)
        told[name] = f"start {start}" if own else in_words(pipeline, seam, name, start, few=few)
    return told


def _few_steps(spec: ModelSpec, mode: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether the `medium` of this model may be other fixes than a start, since its steps are few."""
    if mode != "auto" or spec.start or spec.motion_starts is not None or "medium" not in presets(spec):
        return False
    steps, scheduler = arguments.get("num_inference_steps"), scheduler_from(spec.scheduler)
    if not isinstance(steps, int) or not few_steps(steps):
        return False
    return scheduler is None or keeps_its_levels(scheduler, steps)


def _recommended(spec: ModelSpec) -> Start | None:
    return Start.parse(spec.start) if spec.start else presets(spec).get("medium")
