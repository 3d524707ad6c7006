"""PIA as a denoiser: what training, diagnosis and parity tests ask of the family.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from unleak.families.pia.preset import condition_strength
from unleak.families.timesteps import TimestepDenoiser

__all__ = ["PIACondition", "PIADenoiser"]


@dataclass(frozen=True)
class PIACondition:
    """What the network is told besides x_t: the photo's latents, how closely each frame is to follow it, the text."""

    latents: Float[Tensor, "b c h w"] | Float[Tensor, "b c f h w"]
    strength: Float[Tensor, "f"]
    text: Float[Tensor, "b n d"]


class PIADenoiser(TimestepDenoiser):
    """The denoiser view of a `PIAPipeline`."""

    @torch.no_grad()
    def encode_condition(
        self, image: Float[Tensor, "b 3 H W"], text: list[str], *, num_frames: int, motion_scale: int = 0
    ) -> PIACondition:
        """The condition for images in [-1, 1]. The pipeline's own call samples the posterior; here it is the mode."""
        latents = self.encode_video(image[:, None])[:, :, 0]
        strength = image.new_tensor(condition_strength(motion_scale, num_frames))
        tokens = self.pipe.encode_prompt(text, image.device, 1, False)[0]
        return PIACondition(latents, strength, tokens.to(latents))

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"], condition: PIACondition
    ) -> Float[Tensor, "b c f h w"]:
        """What the network says of x_t."""
        b, _, f, h, w = x_t.shape
        image = condition.latents
        if image.ndim == 4:
            image = repeat(image, "b c h w -> b c f h w", f=f)
        strength = repeat(condition.strength, "f -> b 1 f h w", b=b, h=h, w=w)
        text = repeat(condition.text, "b n d -> (b f) n d", f=f)
        sample = torch.cat([x_t, strength, image], dim=1)
        return self.unet(sample, t, encoder_hidden_states=text, return_dict=False)[0]
