"""Animate-Anything: a photo and a text to a video, moving where a mask says and as strongly as asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from einops import rearrange, repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from unleak.attach.seams import Condition, Seam
from unleak.families.animate_anything.mask import latent_mask
from unleak.families.animate_anything.preset import MOTION
from unleak.families.animate_anything.reference import reference_scheduler, reference_start
from unleak.families.animate_anything.unet import AnimateAnythingUNet

__all__ = ["AnimateAnythingOutput", "AnimateAnythingPipeline"]


@dataclass
class AnimateAnythingOutput(BaseOutput):
    """The videos: lists of PIL images, an array `b f H W 3` or a tensor `b f 3 H W` in [0, 1], or latents."""

    frames: Any


def sigma_of_start(scheduler: Any) -> float:
    """Share of the noise in the latents of the first step."""
    return float(scheduler.add_noise(torch.zeros(1), torch.ones(1), scheduler.timesteps[:1].cpu()))


def photo_of_start(pipe: Any, arguments: Mapping[str, Any]) -> Float[Tensor, "b c f h w"]:
    """What `prepare_latents` adds to its noise: the photo's share in the latents of the first step."""
    photo = repeat(arguments["image_latents"], "b c 1 h w -> b c f h w", f=arguments["num_frames"])
    return pipe.scheduler.add_noise(photo, torch.zeros_like(photo), pipe.scheduler.timesteps[:1])


def published(pipe: Any, arguments: Mapping[str, Any]) -> str | None:
    """Why a call for the published numbers cannot start elsewhere too."""
    del pipe
    if arguments.get("reference_start") is None:
        return None
    return (
        f"reference_start={arguments['reference_start']} is a start of its own, for the published numbers: leave it"
        " away, or start at 1.0T with init='standard'"
    )


def first_frame(pipe: Any) -> tuple[slice, ...]:
    """The photo is the one frame of its argument, `b c 1 h w`."""
    del pipe
    return (slice(None),)


class AnimateAnythingPipeline(DiffusionPipeline, StableDiffusionMixin):
    """`pipe(image, prompt, mask=..., motion_strength=...)`; see `__call__`.

    vae, text_encoder, tokenizer: those of Stable Diffusion 2. scheduler: DDIM, trailing, as published.
    """

    unleak_seam = Seam(
        "b c f h w",
        sigma_of_start,
        added=photo_of_start,
        refuse=published,
        branches="batched",
        condition=Condition(first_frame, frames=2, every_frame=True, argument="condition_latent"),
        motion=MOTION,
    )
    unleak_parts: ClassVar[tuple[type, ...]] = (AnimateAnythingUNet,)
    model_cpu_offload_seq = "text_encoder->unet->vae"
    _callback_tensor_inputs = ("latents", "prompt_embeds")

    def __init__(
        self,
        vae: AutoencoderKL | None,
        text_encoder: CLIPTextModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        unet: AnimateAnythingUNet | None,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def guidance_scale(self) -> float:
        """Of the call that runs."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the call that runs evaluates the network for the negative prompt, too."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the call that runs."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | list[str] | None = None,
        mask: Image.Image | np.ndarray | Tensor | None = None,
        height: int = 320,
        width: int = 512,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 9.0,
        motion_strength: float | None = 5.0,
        negative_prompt: str | list[str] | None = None,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        decode_chunk_size: int = 8,
        reference_start: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AnimateAnythingOutput | tuple[Any]:
        """Animate `image` (PIL, array or tensor in [0, 1], or a list of them, one for each prompt).

        mask: white where things move: an image, or numbers from 0 to 1 of shape [height width]; None: everywhere.
        height, width: of the video in pixels, multiples of the VAE's compression; the image is scaled to them.
        guidance_scale: 1 or less: without guidance. motion_strength: how much, 0 and up; 5 as published.
        latents: to start from, x_M itself, [b c f h w]; None: alpha_M of the image's latents and sigma_M of noise,
        the shares of the first step's level. decode_chunk_size: frames that the VAE decodes at once.
        reference_start: M of the published script, with its arithmetic (`families.animate_anything.reference`).
        output_type: `pil`, `np`, `pt` or `latent`.

        Raises ValueError for what this checkpoint or this call cannot honour.
        """
        self._check(mask, height, width, num_frames, motion_strength)
        self._guidance_scale = guidance_scale
        device, dtype, guided = self._execution_device, self.unet.dtype, guidance_scale > 1
        prompt_embeds = self._embeddings("prompt", prompt, prompt_embeds, None).to(dtype)
        batch = len(prompt_embeds)
        if guided:
            negative = self._embeddings("negative_prompt", negative_prompt, negative_prompt_embeds, batch)
            prompt_embeds = torch.cat([negative.to(prompt_embeds), prompt_embeds])

        pixels = self.video_processor.preprocess(image, height=height, width=width)
        if len(pixels) not in (1, batch):
            raise ValueError(f"{len(pixels)} images for {batch} prompts: give one image, or one for each prompt.")
        image_latents = self.encode_image(pixels).to(dtype).expand(batch, -1, -1, -1, -1)
        masks = None
        if self.unet.config.motion_mask:
            latent_size = (image_latents.shape[-2], image_latents.shape[-1])
            masks = latent_mask(mask, size=(height, width), latent_size=latent_size).to(device, dtype)
        strength = None
        if self.unet.config.motion_strength and motion_strength is not None:
            strength = torch.tensor([motion_strength], device=device)

        if reference_start is None:
            scheduler = self.scheduler
            scheduler.set_timesteps(num_inference_steps, device=device)
        else:
            scheduler = reference_scheduler(self.scheduler.config, reference_start, num_inference_steps, device)
        latents = self.prepare_latents(
            image_latents, num_frames, generator, latents, reference=reference_start is not None
        )
        known = signature(scheduler.step).parameters
        more = {name: value for name, value in (("eta", eta), ("generator", generator)) if name in known}
        condition = torch.cat([image_latents] * 2) if guided else image_latents
        self._num_timesteps = len(scheduler.timesteps)
        with self.progress_bar(total=self._num_timesteps) as bar:
            for i, t in enumerate(scheduler.timesteps):
                sample = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, t)
                prediction = self.unet(
                    sample,
                    t,
                    encoder_hidden_states=prompt_embeds,
                    condition_latent=condition,
                    mask=masks,
                    motion=strength,
                    return_dict=False,
                )[0]
                if guided:
                    negative, positive = prediction.chunk(2)
                    prediction = negative + guidance_scale * (positive - negative)
                latents = scheduler.step(prediction, t, latents, **more).prev_sample
                if callback_on_step_end is not None:
                    ours = {"latents": latents, "prompt_embeds": prompt_embeds}
                    told = {name: ours[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, told)
                    latents = changed.pop("latents", latents)
                    prompt_embeds = changed.pop("prompt_embeds", prompt_embeds)
                bar.update()

        frames: Any = latents
        if output_type != "latent":
            frames = self.video_processor.postprocess_video(
                self.decode_latents(latents, decode_chunk_size), output_type=output_type
            )
        self.maybe_free_model_hooks()
        return AnimateAnythingOutput(frames=frames) if return_dict else (frames,)

    def prepare_latents(
        self,
        image_latents: Float[Tensor, "b c 1 h w"],
        num_frames: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        *,
        reference: bool = False,
    ) -> Float[Tensor, "b c f h w"]:
        """x_M = alpha_M image + sigma_M noise at the level of the first timestep, or `latents` as they are."""
        b, c, _, h, w = image_latents.shape
        shape = (b, c, num_frames, h, w)
        if latents is not None:
            if latents.shape != shape:
                raise ValueError(f"latents: {list(latents.shape)} were given, {list(shape)} are needed.")
            return latents.to(image_latents)
        noise = randn_tensor(shape, generator=generator, device=image_latents.device, dtype=image_latents.dtype)
        photo = image_latents.expand(shape)
        if reference:
            return reference_start(photo, noise)
        return self.scheduler.add_noise(photo, noise, self.scheduler.timesteps[:1])

    def encode_prompt(self, texts: list[str]) -> Float[Tensor, "b n d"]:
        """What the text encoder makes of `texts`, padded or cut to its length."""
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    def encode_image(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c 1 h w"]:
        """Latents of images in [-1, 1]: the mode of the posterior, scaled."""
        pixels = pixels.to(self._execution_device, self.vae.dtype)
        return (self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor)[:, :, None]

    def decode_latents(
        self, latents: Float[Tensor, "b c f h w"], decode_chunk_size: int = 8
    ) -> Float[Tensor, "b 3 f H W"]:
        """Videos about [-1, 1] in float32, decoded frame by frame, `decode_chunk_size` at once."""
        raw = rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype) / self.vae.config.scaling_factor
        frames = torch.cat([self.vae.decode(part).sample for part in raw.split(decode_chunk_size)])
        return rearrange(frames.float(), "(b f) c h w -> b c f h w", b=latents.shape[0])

    def _embeddings(
        self, name: str, texts: str | list[str] | None, embeds: Tensor | None, batch: int | None
    ) -> Float[Tensor, "b n d"]:
        """Of the texts called `name`, or `embeds`; none of both is the empty text. `batch`: how many there must be."""
        if texts is not None and embeds is not None:
            raise ValueError(f"{name} and {name}_embeds say the same thing: give one of them.")
        if embeds is None:
            texts = [texts or ""] * (batch or 1) if texts is None or isinstance(texts, str) else texts
            embeds = self.encode_prompt(texts)
        if batch is not None and len(embeds) != batch:
            raise ValueError(f"{name}: {len(embeds)} were given for {batch} prompts; give one, or one for each.")
        return embeds.to(self._execution_device)

    def _check(self, mask: Any, height: int, width: int, num_frames: int, motion_strength: float | None) -> None:
        multiple = self.vae_scale_factor
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ValueError(f"{width}x{height} pixels: width and height have to be multiples of {multiple}.")
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: give 1 or more; published: 16.")
        if mask is not None and not self.unet.config.motion_mask:
            raise ValueError("this checkpoint was trained without a motion mask: leave the mask away.")
        if motion_strength is None:
            return
        if not self.unet.config.motion_strength:
            raise ValueError("this checkpoint was trained without a motion strength: give motion_strength=None.")
        if not 0 <= motion_strength < float("inf"):
            raise ValueError(f"motion_strength={motion_strength}: give a number from 0 on; published: 5.")
