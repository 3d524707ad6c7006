"""One photo to one video with a loaded model, and the record of how."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from unleak.attach.apply import applied, summary
from unleak.core.initial import AnalyticInit, InitialNoise, parse_init
from unleak.core.process import VE
from unleak.core.start import Start, describe
from unleak.data.image import fit_image
from unleak.zoo.registry import ModelSpec


@dataclass(frozen=True)
class Settings:
    """All that decides a video besides the model and the photo. Sizes in pixels, `fps` in Hz."""

    height: int
    width: int
    num_frames: int
    fps: float
    steps: int
    min_guidance: float
    max_guidance: float
    motion_bucket_id: int
    noise_aug_strength: float
    decode_chunk_size: int
    start: str | None
    init: str
    """`standard`, `unit`, `analytic` (the model's own moments), or a moments file, folder or Hub id."""
    mode: str
    motion: str | None
    seed: int

    @classmethod
    def for_model(
        cls,
        spec: ModelSpec,
        *,
        start: str | None = None,
        init: str | None = None,
        motion: str | None = None,
        mode: str = "rescale",
        seed: int = 0,
        **others: Any,
    ) -> "Settings":
        """The defaults of a model, with what is given (not None) in their place.

        Without `start` and `motion` the model's recommended fix is chosen; a given `start` comes with the `standard`
        initial noise, so that 1.0T is the plain pipeline. Raises ValueError for a size that the network cannot take, a
        start outside its noise process, and for `motion` together with `start`.
        """
        if motion and start:
            raise ValueError("motion chooses the start; give motion or start, not both")
        recommended = start is None and motion is None
        values = {name: getattr(spec, name) for name in cls.__dataclass_fields__ if hasattr(spec, name)}
        values |= {name: value for name, value in others.items() if value is not None}
        values["start"] = spec.start if recommended else start
        values["init"] = init or (spec.init if recommended else "standard")
        settings = cls(**values, mode=mode, motion=motion, seed=seed)
        spec.check_size(settings.height, settings.width)
        if settings.start is not None:
            settings.level(spec)
        return settings

    def level(self, spec: ModelSpec) -> dict[str, Any]:
        """The start in every unit, before the model is loaded."""
        assert self.start is not None
        process = VE(spec.sigma_min, spec.sigma_max)
        return describe(Start.parse(self.start).resolve(process), process)


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
    on_step: Callable[[int, int], None] | None = None,
) -> Sample:
    """Animate `image`, scaled and cropped to the size in `settings`; `on_step(done, of)` is told the progress.

    `init` is what `initial_noise` made of `settings.init`. The random numbers depend on `settings.seed` alone. Raises
    ValueError for moments of another model, too little memory, or a result that is not finite.
    """
    sigmas: list[float] = []

    def after_step(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        del timestep
        sigmas[:] = pipe.scheduler.sigmas.tolist()
        if on_step is not None:
            on_step(step + 1, len(sigmas) - 1)
        return kwargs

    with applied(pipe, start=settings.start, init=init, mode=settings.mode, motion=settings.motion):
        plan = summary(pipe, num_inference_steps=settings.steps)
        try:
            output = pipe(
                fit_image(image, settings.height, settings.width),
                height=settings.height,
                width=settings.width,
                num_frames=settings.num_frames,
                fps=settings.fps,
                num_inference_steps=settings.steps,
                min_guidance_scale=settings.min_guidance,
                max_guidance_scale=settings.max_guidance,
                motion_bucket_id=settings.motion_bucket_id,
                noise_aug_strength=settings.noise_aug_strength,
                decode_chunk_size=settings.decode_chunk_size,
                generator=torch.Generator("cpu").manual_seed(settings.seed),
                output_type="pt",
                callback_on_step_end=after_step,
            )
        except torch.OutOfMemoryError as error:
            size = f"{settings.num_frames} frames of {settings.width}x{settings.height}"
            raise ValueError(f"out of memory on {pipe.device} for {size}; give fewer or smaller ones") from error
    video = output.frames[0]
    if not video.isfinite().all():
        raise ValueError(f"the model gave NaN in {pipe.dtype}; give a dtype of more range (bfloat16 or float32)")
    frames = (video.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    started = {"start": {"asked": plan.start, **plan.level}, "init": plan.init, "sigmas": sigmas}
    return Sample(frames, {"settings": asdict(settings), **started})


def initial_noise(init: str, spec: ModelSpec) -> InitialNoise:
    """What `settings.init` names; `analytic` is the model's own moments. Raises ValueError if there are none."""
    if init in ("standard", "unit"):
        return parse_init(init)
    if init != "analytic":
        if not Path(init).exists() and "/" not in init:
            raise ValueError(f"init {init!r}: no such file; give standard, unit, analytic, or a file of moments")
        return AnalyticInit.from_pretrained(init)
    if spec.moments is None:
        raise ValueError(
            f"init analytic: there are no moments for {spec.name} yet; make them with `unleak stats --videos DIR "
            f"--model {spec.name} --out moments.safetensors` and give --init moments.safetensors"
        )
    beside = Path(spec.source) / spec.moments
    if beside.is_file():
        return AnalyticInit.from_pretrained(beside)
    repository, _, filename = spec.moments.partition(":")
    return AnalyticInit.from_pretrained(repository, filename=filename or None)
