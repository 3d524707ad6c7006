"""One photo to one video with a loaded pipeline, and the record of how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps

from unleak.animate.call import Call
from unleak.animate.frames import frames_of
from unleak.animate.settings import Settings
from unleak.attach.apply import applied, summary
from unleak.attach.schedule import level_of_step, process_of, started_later
from unleak.core.initial import InitialNoise
from unleak.core.start import describe
from unleak.data.image import fit_image

__all__ = ["NotFiniteError", "OutOfMemoryError", "Sample", "check_mask", "sample", "shape_fault"]


class OutOfMemoryError(ValueError):
    """The device has too little memory for this; `decoding`: the steps were done, it is the VAE that needs too much."""

    def __init__(self, message: str, *, decoding: bool) -> None:
        super().__init__(message)
        self.decoding = decoding


def check_mask(call: Call, mask: Image.Image | None = None, image: Image.Image | None = None) -> None:
    """Raise ValueError for a pipeline that takes no motion mask, and for one that was not drawn on this photo."""
    if "mask" not in call.names:
        raise ValueError(f"--mask: a {call.pipeline} takes no motion mask; leave it out")
    if mask is not None and image is not None and (reason := shape_fault(mask, image)) is not None:
        raise ValueError(f"--mask: {reason}")


def shape_fault(mask: Image.Image, image: Image.Image) -> str | None:
    """Say why a mask cannot be one of this photo, or return None if it can: both have the same shape within 2%."""
    (w, h), (width, height) = mask.size, image.size
    if abs(w * height - h * width) <= 0.02 * h * width:
        return None
    return f"{w}x{h} is another shape than the photo's {width}x{height}; draw it on the photo"


class NotFiniteError(ValueError):
    """The video has values that are not finite."""


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
    """Animate `image`, scaled and cropped to the size in `settings`; `on_step(done, of)` is called after each step.

    `mask`, drawn on the same photo, is scaled and cropped likewise; see `check_mask`.

    init: the initial noise that `initial_noise` makes of the settings. The random numbers depend on `settings.seed`
    alone. Raises ValueError for moments of another model, NotFiniteError for a result that is not finite,
    OutOfMemoryError for too little memory.
    """
    call = Call.of(type(pipe))
    seen: dict[str, Any] = {"timesteps": []}
    process = process_of(pipe.scheduler)

    def after_step(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if not seen["timesteps"] and started_later(pipe.scheduler):
            seen["level"] = describe(level_of_step(pipe.scheduler), process)
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
        raise NotFiniteError(f"{error} in {pipe.dtype}; give a dtype of more range (bfloat16 or float32)") from error
    started = {"start": {"asked": plan.start, **seen.get("level", plan.level)}, "init": plan.init}
    made = {"frames": list(frames.shape[:3]), "timesteps": seen["timesteps"], "sigmas": seen.get("sigmas")}
    return Sample(frames, {"settings": settings.record | {"strategies": [*plan.strategies]}, **started, **made})


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; MPS and the CPU say so in words."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)
