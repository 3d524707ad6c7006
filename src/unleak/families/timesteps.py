"""What the views of Stable Diffusion's kin share: a U-Net that is told a timestep of a variance-preserving schedule."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from unleak.core.process import Level
from unleak.families.image_vae import ImageVAE
from unleak.families.view import Levels, View

__all__ = ["TimestepView"]


class TimestepView(View):
    """A view whose network is told an index t of the noise schedule, 0 to T - 1.

    What the network predicts (eps, v or x_0) stands in the scheduler's configuration. Levels between two timesteps are
    taken as the nearer one. `unet` may be replaced by a wrapped network. `frames_at_once` bounds the memory of the VAE.
    """

    def __init__(
        self,
        pipe: Any,
        arguments: Mapping[str, Any] | None = None,
        *,
        experts: str | None = None,
        frames_at_once: int = 64,
    ):
        super().__init__(pipe, arguments, experts=experts)
        self.unet: Callable[..., Any] = pipe.unet
        self.frames_at_once = frames_at_once

    @cached_property
    def vae(self) -> ImageVAE:
        """The pipeline's VAE."""
        return ImageVAE(self.pipe.vae, frames_at_once=self.frames_at_once)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The U-Net."""
        return {"unet": self.pipe.unet}

    @property
    def scaling_factor(self) -> float:
        """Model latents = scaling factor * raw VAE output."""
        return self.vae.scaling_factor

    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode videos to model latents, every frame on its own: the mode of the posterior."""
        return self.vae.encode_video(video)

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Decode clip by clip with the pipeline's own decoder."""
        videos = [self.pipe.decode_latents(one[None].to(self.pipe.vae.dtype)) for one in latents]
        return rearrange(torch.cat(videos), "b c f h w -> b f c h w")

    # Timesteps

    def levels_at(self, t: Int[Tensor, "b"]) -> Levels:
        """Return the levels of timesteps."""
        alphas_cumprod = self.pipe.scheduler.alphas_cumprod.to(t.device)[t].double()
        return Levels(alphas_cumprod.sqrt().float(), (1 - alphas_cumprod).sqrt().float())

    def timesteps(self, levels: Levels) -> Int[Tensor, "b"]:
        """Return the timesteps nearest to levels; of those that `levels_at` gave, the same timesteps."""
        # The angle of (alpha, sigma) is well-conditioned at both ends of the schedule, as neither of the two is.
        angles = torch.atan2(levels.sigma, levels.alpha)
        return (angles[:, None] - self._angles.to(angles)).abs().argmin(1)

    @cached_property
    def _angles(self) -> Float[Tensor, "T"]:
        alphas_cumprod = self.pipe.scheduler.alphas_cumprod.double()
        return torch.atan2((1 - alphas_cumprod).sqrt(), alphas_cumprod.sqrt())

    # Prediction

    def add_noise(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return x_t at the nearest timestep."""
        alpha, sigma = self._at(level, x_0)
        return alpha * x_0 + sigma * eps

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network is trained to predict: eps, v = alpha eps - sigma x_0, or x_0 itself."""
        alpha, sigma = self._at(level, x_0)
        return {"epsilon": eps, "v_prediction": alpha * eps - sigma * x_0, "sample": x_0}[self._kind]

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network says, in the units of `target`."""

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's x_0."""
        alpha, sigma = self._at(level, x_t)
        prediction = self.predict(x_t, level, condition)
        match self._kind:
            case "epsilon":
                return (x_t - sigma * prediction) / alpha
            case "v_prediction":
                return alpha * x_t - sigma * prediction
            case _:
                return prediction

    def time(self, levels: Levels) -> Float[Tensor, "b"]:
        """Return the times that TimeNoise counts in, t / T in [0, 1)."""
        return self.timesteps(levels) / len(self.pipe.scheduler.alphas_cumprod)

    @property
    def _kind(self) -> str:
        kind = str(self.pipe.scheduler.config.prediction_type)
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type {kind!r} is unknown: choose epsilon, v_prediction or sample.")
        return kind

    def _t(self, level: Level | Levels, like: Tensor) -> Int[Tensor, "b"]:
        return self.timesteps(Levels.of(level, like).to(like))

    def _at(self, level: Level | Levels, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma of each clip's timestep, shaped as `like`."""
        alphas_cumprod = self.pipe.scheduler.alphas_cumprod.to(like.device)[self._t(level, like)].double()
        alpha, sigma = (
            values[:, None, None, None, None] for values in (alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())
        )
        return alpha.to(like), sigma.to(like)
