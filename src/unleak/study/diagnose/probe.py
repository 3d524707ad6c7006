"""A model as the tests of leakage see it: clips to latents and back, its condition with and without the image, x_0."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from unleak.attach.apply import applied, summary
from unleak.attach.schedule import nearest, process_of, started
from unleak.attach.seams import seam_of
from unleak.core.process import RF, VE, VP, Level
from unleak.core.start import Start
from unleak.data.pixels import to_unit

__all__ = ["Probe", "probe_of"]

Clips = UInt8[np.ndarray, "b F H W 3"]


class Probe(ABC):
    """A pipeline whose family has a denoiser view. Holds the pipeline, changes nothing in it.

    `told`: arguments of the pipeline's call by their own names, of which those that the network is told are used. Its
    `mask` is an image of the size of the clips.
    """

    absent: ClassVar[str]
    """What stands where the image would, for people."""

    def __init__(self, pipe: Any, told: Mapping[str, Any] | None = None):
        self.pipe, self.told = pipe, dict(told or {})
        self.process = process_of(pipe.scheduler)

    @cached_property
    @abstractmethod
    def view(self) -> Any:
        """The family's denoiser."""

    @abstractmethod
    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        """What the network is told of `images`."""

    @abstractmethod
    def without_image(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        """The same, with what `absent` says in the image's place."""

    @abstractmethod
    def noised(self, x_0: Float[Tensor, "b c f h w"], eps: Tensor, level: Level) -> Float[Tensor, "b c f h w"]:
        """x_t."""

    @abstractmethod
    def predict(self, x_t: Float[Tensor, "b c f h w"], level: Level, condition: Any) -> Float[Tensor, "b c f h w"]:
        """The network's x_0."""

    @property
    def device(self) -> torch.device:
        """Of the latents: where the networks run, also if they wait elsewhere."""
        return torch.device(self.pipe._execution_device)

    def level(self, start: str) -> Level:
        """The level that a start names, as near as the scheduler can start."""
        return nearest(self.pipe.scheduler, Start.parse(start).resolve(self.process))

    def levels(self, start: str, steps: int) -> tuple[Level, ...]:
        """The levels that the pipeline steps through from `start`, its end (no noise) left out."""
        with applied(self.pipe, start=start):
            sigmas = summary(self.pipe, num_inference_steps=steps).after
        if sigmas is None:
            raise ValueError(f"the size of the video decides on the schedule of this {type(self.pipe).__name__}")
        return tuple(nearest(self.pipe.scheduler, self._at(sigma)) for sigma in sigmas if sigma > 0)

    def _at(self, sigma: float) -> Level:
        match self.process:
            case VE():
                return Level(1.0, sigma)
            case RF():
                return Level(1 - sigma, sigma)
            case VP():
                return Level(1 / np.hypot(1, sigma), 1.0 if np.isinf(sigma) else sigma / np.hypot(1, sigma))
        raise AssertionError(self.process)

    def prompts(self, count: int) -> list[str]:
        """The same for every clip."""
        return [self.told.get("prompt") or ""] * count

    def encode(self, clips: Clips) -> Float[Tensor, "b c f h w"]:
        """Model latents."""
        if (hook := getattr(self.pipe.vae, "_hf_hook", None)) is not None:
            hook.pre_forward(self.pipe.vae)  # it waits off the accelerator, and views look where it is
        return self.view.encode_video(to_unit(torch.from_numpy(clips).to(self.device)))

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Clips:
        """The videos, clip by clip as the pipeline does."""
        videos = torch.cat([self._decoded(one[None].to(self.pipe.vae.dtype)) for one in latents]).float()
        if not videos.isfinite().all():
            raise ValueError(f"the model gave NaN in {self.pipe.dtype}; give a dtype of more range (float32)")
        pixels = ((videos.clamp(-1, 1) + 1) * 127.5).round().byte()
        return rearrange(pixels, "b c f h w -> b f h w c").cpu().numpy()

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        return self.pipe.decode_latents(latents)


class _SVD(Probe):
    absent = "zeros, as its guidance has them"

    @cached_property
    def view(self) -> Any:
        from unleak.families.svd.denoiser import SVDDenoiser

        return SVDDenoiser(self.pipe, unet=_in_own_dtype(self.pipe.unet))

    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        del prompts, num_frames
        fps = self.told.get("fps", 7) - 1  # what the pipeline's own call tells the network
        return self.view.encode_condition(
            to_unit(images),
            fps=float(fps),
            motion_bucket_id=float(self.told.get("motion_bucket_id", 127)),
            noise_aug_strength=float(self.told.get("noise_aug_strength", 0.0)),
            generator=torch.Generator().manual_seed(0),
        )

    def without_image(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        from dataclasses import replace

        there = self.condition(images, prompts, num_frames)
        zeros = torch.zeros_like(there.latents), torch.zeros_like(there.image_embeddings)
        return replace(there, latents=zeros[0], image_embeddings=zeros[1])

    def noised(self, x_0: Float[Tensor, "b c f h w"], eps: Tensor, level: Level) -> Float[Tensor, "b c f h w"]:
        return x_0 + level.edm_sigma * eps

    def predict(self, x_t: Float[Tensor, "b c f h w"], level: Level, condition: Any) -> Float[Tensor, "b c f h w"]:
        return self.view.predict_clean(x_t, x_t.new_full((len(x_t),), level.edm_sigma), condition)

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        frames = latents.shape[2]
        per_frame = rearrange(latents, "b c f h w -> b f c h w")
        return self.pipe.decode_latents(per_frame, frames, self.told.get("decode_chunk_size") or frames)


class _Timesteps(Probe):
    """Families on the timesteps of a schedule; their views know its noise."""

    def noised(self, x_0: Float[Tensor, "b c f h w"], eps: Tensor, level: Level) -> Float[Tensor, "b c f h w"]:
        return self.view.add_noise(x_0, eps, self._index(x_0, level))

    def predict(self, x_t: Float[Tensor, "b c f h w"], level: Level, condition: Any) -> Float[Tensor, "b c f h w"]:
        return self.view.predict_clean(x_t, self._index(x_t, level), condition)

    def _index(self, like: Tensor, level: Level) -> Tensor:
        return torch.full((len(like),), round(self.process.timestep_of(level)) - 1, device=like.device)


class _LVDM(_Timesteps):
    absent = "the tokens of no image, zeros for its latents"

    @cached_property
    def view(self) -> Any:
        from unleak.families.denoisers import denoiser_class

        return denoiser_class(type(self.pipe).__name__)(self.pipe, unet=_in_own_dtype(self.pipe.unet))

    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        return self._encoded(images, prompts, num_frames, None)

    def without_image(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        from dataclasses import replace

        none = torch.ones(len(images), dtype=torch.bool, device=images.device)
        there = self._encoded(images, prompts, num_frames, none)
        return replace(there, latents=None if there.latents is None else torch.zeros_like(there.latents))

    def _encoded(
        self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int, dropped: Tensor | None
    ) -> Any:
        rate = self.told.get(self.pipe.config.condition_on)
        return self.view.encode_condition(
            to_unit(images),
            list(prompts),
            num_frames=num_frames,
            fps=None if rate is None else float(rate),
            image_dropped=dropped,
        )


class _Grey(Probe):
    """Families that know no absence of the image: they are told that it is grey."""

    absent = "a grey picture, for the family knows no absence"

    def without_image(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        return self.condition(torch.full_like(images, 128), prompts, num_frames)


class _AnimateAnything(_Grey, _Timesteps):
    @cached_property
    def view(self) -> Any:
        from unleak.families.animate_anything.denoiser import AnimateAnythingDenoiser

        return AnimateAnythingDenoiser(self.pipe, unet=_in_own_dtype(self.pipe.unet))

    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        from unleak.families.animate_anything.mask import moving

        del num_frames
        strength, mask = self.told.get("motion_strength", 5.0), self.told.get("mask")
        moves = None if mask is None else torch.from_numpy(moving(mask)).float().to(images.device)
        return self.view.encode_condition(to_unit(images), list(prompts), mask=moves, motion_strength=strength)


class _PIA(_Grey, _Timesteps):
    @cached_property
    def view(self) -> Any:
        from unleak.families.pia.denoiser import PIADenoiser

        return PIADenoiser(self.pipe, unet=_in_own_dtype(self.pipe.unet))

    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        scale = self.told.get("motion_scale", 0)
        return self.view.encode_condition(
            to_unit(images), list(prompts), num_frames=num_frames, motion_scale=int(scale)
        )


class _Flow(Probe):
    """Rectified flows."""

    def condition(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        still = self.view.encode_still(to_unit(images), num_frames)
        fps = still.new_full((len(images),), float(self.told.get("frame_rate", 25)))  # the pipeline's own default
        return self.view.condition(still, self.view.encode_text(prompts), images, fps=fps)

    def noised(self, x_0: Float[Tensor, "b c f h w"], eps: Tensor, level: Level) -> Float[Tensor, "b c f h w"]:
        return (1 - level.flow_sigma) * x_0 + level.flow_sigma * eps

    def predict(self, x_t: Float[Tensor, "b c f h w"], level: Level, condition: Any) -> Float[Tensor, "b c f h w"]:
        return self.view.predict_clean(x_t, x_t.new_full((len(x_t),), level.flow_sigma), condition)


class _Wan(_Grey, _Flow):
    @cached_property
    def view(self) -> Any:
        from unleak.families.wan.denoiser import WanDenoiser

        return WanDenoiser(self.pipe, experts="both" if self.pipe.config.boundary_ratio is not None else None)

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        vae = self.pipe.vae
        mean, std = (
            latents.new_tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return vae.decode(latents * std + mean, return_dict=False)[0]


class _LTX(_Flow):
    absent = "none: the first frame is noise like the others, as for a video of text alone"

    @cached_property
    def view(self) -> Any:
        from unleak.families.ltx.denoiser import LTXDenoiser

        return LTXDenoiser(self.pipe)

    def without_image(self, images: UInt8[Tensor, "b H W 3"], prompts: Sequence[str], num_frames: int) -> Any:
        from dataclasses import replace

        return replace(self.condition(images, prompts, num_frames), latents=None)

    def levels(self, start: str, steps: int) -> tuple[Level, ...]:
        if not self.pipe.scheduler.config.get("use_dynamic_shifting"):
            return super().levels(start, steps)
        usual = signature(type(self.pipe).__call__).parameters  # the size of the video decides on the schedule
        frames, height, width = (
            int(self.told.get(name, usual[name].default)) for name in ("num_frames", "height", "width")
        )
        space, time = self.pipe.vae_spatial_compression_ratio, self.pipe.vae_temporal_compression_ratio
        mu = self.view.mu((frames - 1) // time + 1, height // space, width // space)
        scheduler = started(self.pipe.scheduler, self.level(start), "rescale")
        scheduler.set_timesteps(**seam_of(self.pipe).grid(steps), mu=mu)
        return tuple(nearest(scheduler, self._at(sigma)) for sigma in scheduler.sigmas.tolist() if sigma > 0)

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        vae = self.pipe.vae
        moments = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        # A VAE that denoises as it decodes is told so much; the noise that the pipeline would add is left away.
        time = latents.new_tensor([self.told.get("decode_timestep", 0.0)]) if vae.config.timestep_conditioning else None
        return vae.decode(self.pipe._denormalize_latents(latents, *moments), time, return_dict=False)[0]


_PROBES: Mapping[str, type[Probe]] = {
    "StableVideoDiffusionPipeline": _SVD,
    "DynamiCrafterPipeline": _LVDM,
    "VideoCrafter1Pipeline": _LVDM,
    "AnimateAnythingPipeline": _AnimateAnything,
    "PIAPipeline": _PIA,
    "WanImageToVideoPipeline": _Wan,
    "LTXImageToVideoPipeline": _LTX,
    "LTXConditionPipeline": _LTX,
}


def check_probed(pipeline: str) -> None:
    """Raise ValueError for a pipeline class whose family has no denoiser view."""
    if pipeline not in _PROBES:
        raise ValueError(
            f"a {pipeline} cannot be diagnosed: its family has no denoiser view; those that have one are"
            f" {', '.join(_PROBES)}; `unleak sweep` measures any other"
        )


def probe_of(pipe: Any, told: Mapping[str, Any] | None = None) -> Probe:
    """The probe of a pipeline; ValueError if its family has no denoiser view."""
    names = [base.__name__ for base in type(pipe).__mro__]
    found = next((_PROBES[name] for name in names if name in _PROBES), None)
    if found is None:
        check_probed(names[0])
    assert found is not None
    return found(pipe, told)


def _in_own_dtype(network: Any) -> Callable[..., Any]:
    """`network` taking and giving float32, whatever it computes in."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        def cast(value: Any) -> Any:
            return value.to(network.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        out = network(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})
        return tuple(one.float() if isinstance(one, Tensor) else one for one in out)

    return forward
