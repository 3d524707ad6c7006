"""The view of PIA.

Latents are `b c f h w`, scaled by the VAE's scaling factor: those of the photo, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from unleak.core.process import Level
from unleak.families.pia.preset import condition_strength
from unleak.families.timesteps import TimestepView
from unleak.families.view import GREY, Levels, in_own_dtype

__all__ = ["PIACondition", "PIAView"]


@dataclass(frozen=True)
class PIACondition:
    """What the network is told besides x_t: the photo's latents, how closely each frame is to follow it, the text."""

    latents: Float[Tensor, "b c h w"] | Float[Tensor, "b c f h w"]
    strength: Float[Tensor, "f"]
    text: Float[Tensor, "b n d"]


class PIAView(TimestepView):
    """The view of a `PIAPipeline`."""

    absent = "a grey picture, for the family knows no absence"

    @torch.no_grad()
    def encode_condition(
        self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int
    ) -> PIACondition:
        """Encode the condition with the pipeline's `motion_scale` (0).

        The pipeline's own call samples the photo's posterior; here it is the mode.
        """
        latents = self.encode_video(image[:, None])[:, :, 0]
        scale = int(self.arguments.get("motion_scale", 0))
        tokens = self.pipe.encode_prompt(list(prompts), image.device, 1, False)[0]
        return PIACondition(latents, image.new_tensor(condition_strength(scale, num_frames)), tokens.to(latents))

    def without_image(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> PIACondition:
        """Encode the same for a grey picture."""
        return self.encode_condition(torch.full_like(image, GREY), prompts, num_frames)

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: PIACondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network says of x_t."""
        b, _, f, h, w = x_t.shape
        image = condition.latents
        if image.ndim == 4:
            image = repeat(image, "b c h w -> b c f h w", f=f)
        strength = repeat(condition.strength, "f -> b 1 f h w", b=b, h=h, w=w)
        text = repeat(condition.text, "b n d -> (b f) n d", f=f)
        sample = torch.cat([x_t, strength, image], dim=1)
        return in_own_dtype(self.unet, sample, self._t(level, x_t), encoder_hidden_states=text)
