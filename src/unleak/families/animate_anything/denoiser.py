"""Animate-Anything as a denoiser: what training, diagnosis and parity tests ask of the family.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from unleak.families.animate_anything.mask import latent_mask
from unleak.families.prediction import clean_of
from unleak.families.svd.denoiser import SVDDenoiser

__all__ = ["AnimateAnythingCondition", "AnimateAnythingDenoiser"]


@dataclass(frozen=True)
class AnimateAnythingCondition:
    """What the network is told besides x_t: the photo's latents, the text, where things move and how strongly."""

    latents: Float[Tensor, "b c h w"]
    text: Float[Tensor, "b n d"]
    mask: Float[Tensor, "b h w"] | None
    strength: Float[Tensor, "b"] | None


class AnimateAnythingDenoiser:
    """The denoiser view of an `AnimateAnythingPipeline`. Holds the pipeline, changes nothing in it.

    `unet` may be replaced by a wrapped network (mixed precision, several processes). `frames_at_once` bounds the memory
    of the VAE. Results have the dtype of the images given.
    """

    def __init__(self, pipe: Any, *, unet: Callable[..., Any] | None = None, frames_at_once: int = 64):
        self.pipe = pipe
        self.unet = pipe.unet if unet is None else unet
        self._vae = SVDDenoiser(pipe, frames_at_once=frames_at_once)

    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Model latents (scaled) of videos in [-1, 1]: the mode of the posterior, every frame on its own."""
        return self._vae.encode_video(video)

    @torch.no_grad()
    def encode_condition(
        self,
        image: Float[Tensor, "b 3 H W"],
        text: list[str],
        *,
        mask: Float[Tensor, "H W"] | None = None,
        motion_strength: float | Float[Tensor, "b"] | None = 5.0,
    ) -> AnimateAnythingCondition:
        """The condition for images in [-1, 1]; `mask` as the pipeline takes it, `motion_strength` for all or each."""
        latents = self.encode_video(image[:, None])[:, :, 0]
        masks = strength = None
        if self.pipe.unet.config.motion_mask:
            size, latent_size = (image.shape[2], image.shape[3]), (latents.shape[2], latents.shape[3])
            weights = latent_mask(mask, size=size, latent_size=latent_size).to(latents)
            masks = repeat(weights, "1 1 1 h w -> b h w", b=len(image))
        if self.pipe.unet.config.motion_strength and motion_strength is not None:
            strength = torch.as_tensor(motion_strength).to(latents).expand(len(image))
        return AnimateAnythingCondition(latents, self.pipe.encode_prompt(text).to(latents), masks, strength)

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], timestep: Int[Tensor, "b"], condition: AnimateAnythingCondition
    ) -> Float[Tensor, "b c f h w"]:
        """The network's x_0 given x_t = alpha x_0 + sigma eps at each `timestep`, an index of the noise schedule."""
        prediction = self.unet(
            x_t,
            timestep,
            encoder_hidden_states=condition.text,
            condition_latent=condition.latents[:, :, None],
            mask=None if condition.mask is None else condition.mask[:, None, None],
            motion=condition.strength,
            return_dict=False,
        )[0]
        return clean_of(self.pipe.scheduler, prediction, x_t, timestep)
