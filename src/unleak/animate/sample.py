"""One photo to one video with a loaded model, and the record of how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps

from unleak.animate.call import Call
from unleak.animate.frames import frames_of
from unleak.animate.request import Guidance, Request
from unleak.attach.apply import applied, summary
from unleak.attach.plan import Strategy
from unleak.attach.schedule import nearest, process_of
from unleak.attach.seams import seam_of_class
from unleak.core.initial import AnalyticInit, InitialNoise, parse_init
from unleak.core.start import Start, describe
from unleak.data.image import fit_image
from unleak.zoo.classes import pipeline_class, scheduler_from
from unleak.zoo.fetch import fetch_file
from unleak.zoo.registry import ModelSpec
from unleak.zoo.safety import check_pickle

__all__ = ["OutOfMemoryError", "Sample", "Settings", "check_init", "check_mask", "initial_noise", "sample", "size_of"]


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
        """The defaults of a model, with what `request` asks (not None) in their place; or the same as keywords.

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
        settings = cls(
            arguments,
            fps=float(playback),
            start=_recommended(spec) if recommended else asks.start,
            init=asks.init or (spec.init if asks.start is None else "standard"),
            mode=asks.mode,
            motion=asks.motion,
            seed=asks.seed,
            strategies=tuple(asks.strategies),
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
        """Frames of the video; None where the pipeline decides."""
        return self.arguments.get("num_frames", self.arguments.get("frames"))

    @property
    def steps(self) -> int:
        """Denoising steps asked for."""
        return int(self.arguments["num_inference_steps"])

    @property
    def record(self) -> dict[str, Any]:
        """As plain values."""
        start = None if self.start is None else str(self.start)
        strategies = [repr(one) for one in self.strategies]
        return {**vars(self), "arguments": dict(self.arguments), "start": start, "strategies": strategies}

    def prompted(self, prompt: str | None) -> "Settings":
        """The same for a photo with a prompt of its own (None: as it is)."""
        return self if prompt is None else replace(self, arguments={**self.arguments, "prompt": prompt})

    def level(self, spec: ModelSpec) -> dict[str, Any]:
        """The start in every unit, before the model is loaded; `text` alone where that cannot be known yet."""
        scheduler = scheduler_from(spec.scheduler)
        if scheduler is None:
            return {"text": "told once the model is loaded"}
        start = self.start or (_presets(spec).get(self.motion) if self.motion else Start.fraction(1.0))
        if start is None:
            known = ", ".join(_presets(spec)) or "none of these"
            raise ValueError(f"motion {self.motion!r}: {spec.name} has {known}; give --start instead")
        process = process_of(scheduler)
        return describe(nearest(scheduler, start.resolve(process)), process)


class OutOfMemoryError(ValueError):
    """The device has too little memory for this; `decoding`: the steps were done, it is the VAE that needs too much."""

    def __init__(self, message: str, *, decoding: bool) -> None:
        super().__init__(message)
        self.decoding = decoding


def check_mask(call: Call, mask: Image.Image | None = None, image: Image.Image | None = None) -> None:
    """Raise ValueError for a pipeline that takes no motion mask, and for one that was not drawn on this photo."""
    if "mask" not in call.names:
        raise ValueError(f"--mask: a {call.pipeline} takes no motion mask; leave it out")
    if mask is None or image is None:
        return
    (w, h), (width, height) = mask.size, image.size
    if abs(w * height - h * width) > 0.02 * h * width:
        raise ValueError(f"--mask: {w}x{h} is another shape than the photo's {width}x{height}; draw it on the photo")


@dataclass(frozen=True)
class Sample:
    """The frames, and what was run, as plain values for a JSON file."""

    frames: UInt8[np.ndarray, "f h w 3"]
    record: dict[str, Any]


def sample(
    pipe: Any,
    image: Image.Image,
    settings: Settings,
    init: str | InitialNoise = "standard",
    *,
    mask: Image.Image | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Sample:
    """Animate `image`, scaled and cropped to the size in `settings`; `on_step(done, of)` is told the progress.

    `mask`, drawn on the same photo, is scaled and cropped likewise; see `check_mask`.

    `init` is what `initial_noise` made of `settings.init`. The random numbers depend on `settings.seed` alone. Raises
    ValueError for moments of another model or a result that is not finite, OutOfMemoryError for too little memory.
    """
    call = Call.of(type(pipe))
    seen: dict[str, Any] = {"timesteps": []}

    def after_step(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen["timesteps"].append(float(torch.as_tensor(timestep).max()))  # some have one for each frame
        if getattr(pipe.scheduler, "sigmas", None) is not None:
            seen["sigmas"] = [float(sigma) for sigma in pipe.scheduler.sigmas]
        seen["steps"] = -(-len(pipe.scheduler.timesteps) // pipe.scheduler.order)
        if on_step is not None:
            on_step(step + 1, seen["steps"])
        return kwargs

    if mask is not None:
        check_mask(call, mask, image)
    if settings.height and settings.width:
        if mask is not None:
            mask = ImageOps.fit(mask, (settings.width, settings.height), Image.Resampling.NEAREST)
        image = fit_image(image, settings.height, settings.width)
    inputs = {
        **settings.arguments,
        "image": image,
        **({} if mask is None else {"mask": mask}),
        "generator": torch.Generator("cpu").manual_seed(settings.seed),
        "output_type": "np",
        "callback_on_step_end": after_step,
    }
    fix = {"start": settings.start, "init": init, "mode": settings.mode, "motion": settings.motion}
    with applied(pipe, **fix, strategies=settings.strategies):
        plan = summary(pipe, num_inference_steps=settings.steps)
        try:
            output = pipe(**{name: value for name, value in inputs.items() if name in call.names})
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            done = len(seen["timesteps"]) == seen.get("steps")
            size = f"{settings.num_frames} frames of {settings.width}x{settings.height}"
            raise OutOfMemoryError(f"out of memory for {size}; give fewer or smaller ones", decoding=done) from error
    try:
        frames = frames_of(output)
    except FloatingPointError as error:
        raise ValueError(f"{error} in {pipe.dtype}; give a dtype of more range (bfloat16 or float32)") from error
    started = {"start": {"asked": plan.start, **plan.level}, "init": plan.init}
    made = {"frames": list(frames.shape[:3]), "timesteps": seen["timesteps"], "sigmas": seen.get("sigmas")}
    return Sample(frames, {"settings": settings.record, **started, **made})


def initial_noise(init: str, spec: ModelSpec, *, height: int | None = None, width: int | None = None) -> InitialNoise:
    """What `settings.init` names; `analytic` is the model's own moments, made at this size in pixels if there are some.

    Raises ValueError if there are none.
    """
    place = check_init(init, spec, height=height, width=width)
    if place is None:
        return parse_init(init)
    if isinstance(place, str) and ":" in place:
        place = fetch_file(place)
        check_pickle(place, most=_MAX_MOMENTS)
    return AnalyticInit.from_pretrained(place)


def size_of(settings: Settings) -> dict[str, int | None]:
    """Height and width, as `initial_noise` takes them."""
    return {"height": settings.height, "width": settings.width}


def check_init(init: str, spec: ModelSpec, *, height: int | None = None, width: int | None = None) -> Path | str | None:
    """Where the moments are that `init` needs: here, or on the Hub; None if it needs none. Nothing is downloaded.

    Raises ValueError if there are none.
    """
    if init in ("standard", "unit"):
        return None
    if init != "analytic":
        if not Path(init).exists() and "/" not in init:
            raise ValueError(f"init {init!r}: no such file; give standard, unit, analytic, or a file of moments")
        return Path(init) if Path(init).exists() else init
    moments = spec.moments_for(height, width)
    if moments is None:
        raise ValueError(
            f"init analytic: there are no moments for {spec.name} yet; make them with `unleak stats --videos DIR "
            f"--model {spec.name} --out moments.safetensors` and give --init moments.safetensors"
        )
    beside = Path(spec.source) / moments
    return beside if beside.is_file() else moments


_MAX_MOMENTS = 1_000_000_000  # bytes; those of a film in full resolution have less

# Arguments without which the pipelines that have them cannot run: a face, a motion to follow.
_MORE_THAN_A_PHOTO = frozenset({"id_cond", "pose_video", "control_video", "controls"})


def _arguments(call: Call, spec: ModelSpec, asks: Request) -> dict[str, Any]:
    """The plain arguments of the pipeline's call: its own defaults, then the model's, then what is asked."""
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
    if "motion_scale" in arguments and not 0 <= arguments["motion_scale"] <= 8:  # -1 would be the last, in silence
        raise ValueError(f"--set motion_scale={arguments['motion_scale']}: give 0 to 8; loops are 3 to 5")
    return arguments


def _guidance(call: Call, asked: Guidance) -> dict[str, float]:
    """The guidance scales under the names that this pipeline has for them."""
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
    """ValueError if a negative prompt would be without effect: what pipelines ask is whether their scale exceeds 1."""
    scale = next((name for name in ("true_cfg_scale", "guidance_scale") if name in arguments), None)
    if scale is not None and arguments[scale] is not None and arguments[scale] <= 1:
        how = "--guidance" if scale == "guidance_scale" else f"--set {scale}="
        raise ValueError(
            f"--negative-prompt has no effect at {scale} {arguments[scale]:g}; raise it above 1 with {how}"
        )


def _presets(spec: ModelSpec) -> Mapping[str, Start]:
    if spec.motion_starts is not None:
        return {name: Start.parse(text) for name, text in spec.motion_starts.items()}
    return seam_of_class(pipeline_class(spec.pipeline)).motion


def _recommended(spec: ModelSpec) -> Start | None:
    return Start.parse(spec.start) if spec.start else _presets(spec).get("medium")


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; MPS and the CPU say so in words."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)
