"""What the views of rectified flows share: x_t = (1 - sigma) x_0 + sigma eps, and the network predicts eps - x_0."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unleak.core.process import Level
from unleak.families.latents import encode_video
from unleak.families.view import Levels, View, per_clip

__all__ = ["FlowView"]


class FlowView(View):
    """A view whose network predicts the velocity of a rectified flow. sigma is that after any shift."""

    trained_on = "flow"
    sigmas: Any = (0.0, 1.0)
    """Least and greatest sigma that the networks are for."""

    @abstractmethod
    def shift(self, frames: int, height: int, width: int) -> float:
        """Return the timestep shift that the pipeline samples latents of this size with."""

    @abstractmethod
    def encode_still(self, image: Float[Tensor, "b 3 H W"], num_frames: int) -> Float[Tensor, "b c f h w"]:
        """Encode what of the condition the VAE makes of images."""

    @abstractmethod
    def condition(
        self,
        still: Float[Tensor, "b c f h w"],
        text: Float[Tensor, "b l d"],
        image: Float[Tensor, "b 3 H W"],
        *,
        fps: Float[Tensor, "b"],
        level: Float[Tensor, "b"] | None = None,
    ) -> Any:
        """Put together what the network is told; `level` is sigma of the noise on `still` that it is told of."""

    @abstractmethod
    def velocity(
        self, x_t: Float[Tensor, "b c f h w"], sigma: Float[Tensor, "b"], condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's eps - x_0 at the flow's sigma."""

    @torch.no_grad()
    def encode_video(self, video: Float[Tensor, "b F 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode videos to model latents: the mode of the posterior."""
        return encode_video(self.pipe, video)

    def encode_condition(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> Any:
        """Encode the condition with the pipeline's `frame_rate` (25 if it is not given)."""
        still = self.encode_still(image, num_frames)
        fps = still.new_full((len(image),), float(self.arguments.get("frame_rate", 25)))
        return self.condition(still, self.encode_text(prompts), image, fps=fps)

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's eps - x_0."""
        return self.velocity(x_t, Levels.of(level, x_t).flow_sigma.to(x_t.device), condition)

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return eps - x_0."""
        del level
        return eps - x_0

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return x_t - sigma F(x_t)."""
        levels = Levels.of(level, x_t)
        return x_t - per_clip(levels.flow_sigma, x_t) * self.predict(x_t, levels, condition)

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b F 3 H W"]:
        """Decode clip by clip."""
        videos = [self._decoded(one[None].to(self.pipe.vae.dtype)) for one in latents]
        return rearrange(torch.cat(videos), "b c f h w -> b f c h w")

    @abstractmethod
    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]: ...
