"""PIA as a denoiser: what training, diagnosis and parity tests ask of the family.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from unleak.families.pia.preset import condition_strength
from unleak.families.prediction import clean_of
from unleak.families.svd.denoiser import SVDDenoiser

__all__ = ["PIACondition", "PIADenoiser"]


@dataclass(frozen=True)
class PIACondition:
    """What the network is told besides x_t: the photo's latents, how closely each frame is to follow it, the text."""

    latents: Float[Tensor, "b c h w"] | Float[Tensor, "b c f h w"]
    strength: Float[Tensor, "f"]
    text: Float[Tensor, "b n d"]


class PIADenoiser:
    """The denoiser view of a `PIAPipeline`. Holds the pipeline, changes nothing in it.

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
        self, image: Float[Tensor, "b 3 H W"], text: list[str], *, num_frames: int, motion_scale: int = 0
    ) -> PIACondition:
        """The condition for images in [-1, 1]. The pipeline's own call samples the posterior; here it is the mode."""
        latents = self.encode_video(image[:, None])[:, :, 0]
        strength = image.new_tensor(condition_strength(motion_scale, num_frames))
        tokens = self.pipe.encode_prompt(text, image.device, 1, False)[0]
        return PIACondition(latents, strength, tokens.to(latents))

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], timestep: Int[Tensor, "b"], condition: PIACondition
    ) -> Float[Tensor, "b c f h w"]:
        """The network's x_0 given x_t = alpha x_0 + sigma eps at each `timestep`, an index of the noise schedule."""
        b, _, f, h, w = x_t.shape
        image = condition.latents
        if image.ndim == 4:
            image = repeat(image, "b c h w -> b c f h w", f=f)
        strength = repeat(condition.strength, "f -> b 1 f h w", b=b, h=h, w=w)
        text = repeat(condition.text, "b n d -> (b f) n d", f=f)
        sample = torch.cat([x_t, strength, image], dim=1)
        prediction = self.unet(sample, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return clean_of(self.pipe.scheduler, prediction, x_t, timestep)
