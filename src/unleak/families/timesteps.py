"""What denoiser views of Stable Diffusion's kin share: a U-Net on the timesteps of a schedule, an image VAE."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from unleak.families.svd.denoiser import SVDDenoiser

__all__ = ["TimestepDenoiser"]


class TimestepDenoiser(ABC):
    """The denoiser view of a pipeline. Holds it, changes nothing in it.

    `t` is an index of the noise schedule, 0 to 999: x_t = alpha_t x_0 + sigma_t eps. What the network predicts (eps, v
    or x_0) is in the scheduler's configuration. `unet` may be replaced by a wrapped network (mixed precision, several
    processes). `frames_at_once` bounds the memory of the VAE. Results have the dtype of the images given.
    """

    def __init__(self, pipe: Any, *, unet: Callable[..., Any] | None = None, frames_at_once: int = 64):
        self.pipe = pipe
        self.unet = pipe.unet if unet is None else unet
        self._vae = SVDDenoiser(pipe, unet=self.unet, frames_at_once=frames_at_once)

    @property
    def scaling_factor(self) -> float:
        """Model latents = scaling factor * raw VAE output."""
        return self._vae.scaling_factor

    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Model latents (scaled) of videos in [-1, 1]: the mode of the posterior, every frame on its own."""
        return self._vae.encode_video(video)

    def time(self, t: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """Timesteps as TimeNoise counts them, in [0, 1)."""
        return t / self.pipe.scheduler.config.num_train_timesteps

    def add_noise(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b c f h w"]:
        """x_t."""
        alpha, sigma = self._level(t, x_0)
        return alpha * x_0 + sigma * eps

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b c f h w"]:
        """What the network is trained to predict: eps, v = alpha eps - sigma x_0, or x_0 itself."""
        alpha, sigma = self._level(t, x_0)
        return {"epsilon": eps, "v_prediction": alpha * eps - sigma * x_0, "sample": x_0}[self._kind]

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"], condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """What the network says, in the units of `target`."""

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, "b"], condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """The network's x_0."""
        alpha, sigma = self._level(t, x_t)
        prediction = self.predict(x_t, t, condition)
        match self._kind:
            case "epsilon":
                return (x_t - sigma * prediction) / alpha
            case "v_prediction":
                return alpha * x_t - sigma * prediction
            case _:
                return prediction

    @property
    def _kind(self) -> str:
        kind = str(self.pipe.scheduler.config.prediction_type)
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type {kind!r} is unknown: choose epsilon, v_prediction or sample.")
        return kind

    def _level(self, t: Int[Tensor, "b"], like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of each clip, [b 1 1 1 1]."""
        variance = self.pipe.scheduler.alphas_cumprod.to(like.device)[t].double()[:, None, None, None, None]
        return variance.sqrt().to(like), (1 - variance).sqrt().to(like)
