"""Animate-Anything as a denoiser: what training, diagnosis and parity tests ask of the family.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from unleak.families.animate_anything.mask import latent_mask
from unleak.families.timesteps import TimestepDenoiser

__all__ = ["AnimateAnythingCondition", "AnimateAnythingDenoiser"]


@dataclass(frozen=True)
class AnimateAnythingCondition:
    """What the network is told besides x_t: the photo's latents, the text, where things move and how strongly."""

    latents: Float[Tensor, "b c h w"]
    text: Float[Tensor, "b n d"]
    mask: Float[Tensor, "b h w"] | None
    strength: Float[Tensor, "b"] | None


class AnimateAnythingDenoiser(TimestepDenoiser):
    """The denoiser view of an `AnimateAnythingPipeline`."""

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

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"], condition: AnimateAnythingCondition
    ) -> Float[Tensor, "b c f h w"]:
        """What the network says of x_t."""
        return self.unet(
            x_t,
            t,
            encoder_hidden_states=condition.text,
            condition_latent=condition.latents[:, :, None],
            mask=None if condition.mask is None else condition.mask[:, None, None],
            motion=condition.strength,
            return_dict=False,
        )[0]
