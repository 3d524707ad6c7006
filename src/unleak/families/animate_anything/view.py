"""The view of Animate-Anything.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from unleak.core.process import Level
from unleak.families.animate_anything.mask import latent_mask
from unleak.families.timesteps import TimestepView
from unleak.families.view import GREY, Levels, in_own_dtype

__all__ = ["AnimateAnythingCondition", "AnimateAnythingView"]


@dataclass(frozen=True)
class AnimateAnythingCondition:
    """What the network is told besides x_t: the photo's latents, the text, where things move and how strongly."""

    latents: Float[Tensor, "b c h w"]
    text: Float[Tensor, "b n d"]
    mask: Float[Tensor, "b h w"] | None
    strength: Float[Tensor, "b"] | None


class AnimateAnythingView(TimestepView):
    """The view of an `AnimateAnythingPipeline`."""

    absent = "a grey picture, for the family knows no absence"

    @torch.no_grad()
    def encode_condition(
        self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int
    ) -> AnimateAnythingCondition:
        """Encode the condition with the pipeline's `mask` (an image of the clips' size) and `motion_strength` (5)."""
        del num_frames
        latents = self.encode_video(image[:, None])[:, :, 0]
        given, strength = self.arguments.get("mask"), self.arguments.get("motion_strength", 5.0)
        masks = strengths = None
        if self.pipe.unet.config.motion_mask:
            size, latent_size = (image.shape[2], image.shape[3]), (latents.shape[2], latents.shape[3])
            weights = latent_mask(given, size=size, latent_size=latent_size).to(latents)
            masks = repeat(weights, "1 1 1 h w -> b h w", b=len(image))
        if self.pipe.unet.config.motion_strength and strength is not None:
            strengths = torch.as_tensor(strength).to(latents).expand(len(image))
        return AnimateAnythingCondition(latents, self.pipe.encode_prompt(list(prompts)).to(latents), masks, strengths)

    def without_image(
        self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int
    ) -> AnimateAnythingCondition:
        """Encode the same for a grey picture."""
        return self.encode_condition(torch.full_like(image, GREY), prompts, num_frames)

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: AnimateAnythingCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network says of x_t."""
        return in_own_dtype(
            self.unet,
            x_t,
            self._t(level, x_t),
            encoder_hidden_states=condition.text,
            condition_latent=condition.latents[:, :, None],
            mask=None if condition.mask is None else condition.mask[:, None, None],
            motion=condition.strength,
        )
