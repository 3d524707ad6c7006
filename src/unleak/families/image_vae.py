"""VAEs of images, which encode and decode every frame of a video by itself: Stable Diffusion's and its kin's."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

__all__ = ["ImageVAE"]


class ImageVAE:
    """The image VAE of a pipeline. `frames_at_once` bounds the memory; results have the dtype of the images given.

    Raw latents are the VAE's own output, model latents that times the scaling factor.
    """

    def __init__(self, vae: Any, *, frames_at_once: int = 64):
        self.vae, self.frames_at_once = vae, frames_at_once

    @property
    def scaling_factor(self) -> float:
        """Model latents = scaling factor * raw VAE output."""
        return float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode videos in [-1, 1] to model latents: the mode of the posterior."""
        latents = self.encode_raw(rearrange(video, "b f c h w -> (b f) c h w"))
        return rearrange(latents * self.scaling_factor, "(b f) c h w -> b c f h w", b=video.shape[0])

    @torch.no_grad()
    def encode_posterior(
        self, video: Float[Tensor, "b f 3 H W"]
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Return mean and standard deviation of the model latents of videos in [-1, 1]."""
        moments = self._raw(rearrange(video, "b f c h w -> (b f) c h w"), ("mean", "std"))
        mean, std = (
            rearrange(each * self.scaling_factor, "(b f) c h w -> b c f h w", b=len(video)) for each in moments
        )
        return mean, std

    def encode_raw(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Encode images in [-1, 1] to raw latents (the posterior's mode), in float32 if float16 would overflow."""
        (mode,) = self._raw(images, ("mean",))
        return mode

    @torch.no_grad()
    def _raw(self, images: Float[Tensor, "n 3 H W"], moments: tuple[str, ...]) -> list[Float[Tensor, "n c h w"]]:
        vae = self.vae
        # Not `vae.device` and `vae.dtype`, which look through all modules each time: a small model feels that.
        weight = next(vae.parameters())
        upcast = weight.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            vae.to(torch.float32)
        try:
            pieces = images.to(weight.device, weight.dtype).split(self.frames_at_once)
            posteriors = [vae.encode(piece).latent_dist for piece in pieces]
            latents = [torch.cat([getattr(posterior, name) for posterior in posteriors]) for name in moments]
        finally:
            if upcast:
                vae.to(torch.float16)
        return [each.to(images.dtype) for each in latents]
