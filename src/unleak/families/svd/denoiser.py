"""Stable Video Diffusion as a denoiser: what training, diagnosis and parity tests ask of the family.

Latents are `b c f h w` here and `b f c h w` at diffusers' border. The condition latents are *raw* VAE output, not
multiplied by the scaling factor: that is what the network was trained on, and the unit of every noise strength on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

CLIP_SIZE = (224, 224)  # the pipeline resizes to this whatever the image encoder's own configuration says


@dataclass(frozen=True)
class SVDCondition:
    """What the network is told besides x_t: one raw image latent per clip or per frame, the CLIP embedding of the
    image, and (fps, motion bucket id, noise strength)."""

    latents: Float[Tensor, "b c h w"] | Float[Tensor, "b c f h w"]
    image_embeddings: Float[Tensor, "b 1 d"]
    added_time_ids: Float[Tensor, "b 3"]


def precondition(sigma: Float[Tensor, "b"]) -> tuple[Float[Tensor, "b"], ...]:
    """c_skip, c_out, c_in, c_noise of EDM (Karras et al. 2022, eq. 7) for a v-predicting network, sigma_data 1."""
    root = (sigma**2 + 1).sqrt()
    return 1 / root**2, -sigma / root, 1 / root, 0.25 * sigma.log()


def predict_clean(
    unet: Callable[..., Any],
    x_t: Float[Tensor, "b c f h w"],
    sigma: Float[Tensor, "b"],
    condition: SVDCondition,
) -> Float[Tensor, "b c f h w"]:
    """x_0 = c_skip x_t + c_out F(c_in x_t, c_noise; condition), with `unet` any callable of the diffusers signature."""
    c_skip, c_out, c_in, c_noise = precondition(sigma)
    image = condition.latents
    if image.ndim == 4:
        image = repeat(image, "b c h w -> b c f h w", f=x_t.shape[2])
    sample = torch.cat([_per_clip(c_in) * x_t, image], dim=1)
    prediction = unet(
        rearrange(sample, "b c f h w -> b f c h w"),
        c_noise,
        encoder_hidden_states=condition.image_embeddings,
        added_time_ids=condition.added_time_ids,
        return_dict=False,
    )[0]
    return _per_clip(c_skip) * x_t + _per_clip(c_out) * rearrange(prediction, "b f c h w -> b c f h w")


class SVDDenoiser:
    """The denoiser view of a `StableVideoDiffusionPipeline`. Holds the pipeline, changes nothing in it.

    `unet` may be replaced by a wrapped network (mixed precision, several processes). `frames_at_once` bounds the memory
    of the VAE. Results have the dtype of the images given.
    """

    trained_on: ClassVar[str] = "sigma"
    noised: ClassVar[tuple[str, ...]] = ("latents",)
    temporal: ClassVar[tuple[str, ...]] = ("*temporal*",)
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "blocks": ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out"),
    }

    def __init__(self, pipe: Any, *, unet: Callable[..., Any] | None = None, frames_at_once: int = 64):
        self.pipe = pipe
        self.unet = pipe.unet if unet is None else unet
        self.frames_at_once = frames_at_once

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is trained, by its name in the pipeline."""
        return {"unet": self.pipe.unet}

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Inputs of the network for so many clips of latents of this size, without data, where its weights are."""
        config, at = network.config, next(network.parameters()).device
        return {
            "sample": torch.empty(clips, frames, config.in_channels, height, width, device=at),
            "timestep": torch.empty(clips, device=at),
            "encoder_hidden_states": torch.empty(clips, 1, config.cross_attention_dim, device=at),
            "added_time_ids": torch.empty(clips, 3, device=at),
        }

    @property
    def scaling_factor(self) -> float:
        """Model latents = scaling factor * raw VAE output."""
        return float(self.pipe.vae.config.scaling_factor)

    @torch.no_grad()
    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Model latents (scaled) of videos in [-1, 1]: the mode of the posterior, every frame on its own."""
        latents = self.encode_raw(rearrange(video, "b f c h w -> (b f) c h w"))
        return rearrange(latents * self.scaling_factor, "(b f) c h w -> b c f h w", b=video.shape[0])

    @torch.no_grad()
    def encode_posterior(
        self, video: Float[Tensor, "b f 3 H W"]
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Mean and standard deviation of the model latents of videos in [-1, 1]."""
        moments = self._raw(rearrange(video, "b f c h w -> (b f) c h w"), ("mean", "std"))
        mean, std = (
            rearrange(each * self.scaling_factor, "(b f) c h w -> b c f h w", b=len(video)) for each in moments
        )
        return mean, std

    def encode_raw(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Raw VAE latents (mode of the posterior) of images in [-1, 1], in float32 if float16 would overflow."""
        (mode,) = self._raw(images, ("mean",))
        return mode

    @torch.no_grad()
    def _raw(self, images: Float[Tensor, "n 3 H W"], moments: tuple[str, ...]) -> list[Float[Tensor, "n c h w"]]:
        vae = self.pipe.vae
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

    @torch.no_grad()
    def embed_image(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 d"]:
        """CLIP embedding of images in [-1, 1], by the pipeline's own resizing and normalisation."""
        # Not at the top: that module loads half of transformers, which whoever holds a pipeline has done already.
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

        encoder, processor = self.pipe.image_encoder, self.pipe.feature_extractor
        pixels = _resize_with_antialiasing(image.float(), CLIP_SIZE)
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
        # In place, on the resized copy: in a small model's training step these large images would cost more than CLIP.
        pixels.add_(1).div_(2).sub_(mean).div_(std)
        return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None].to(image.dtype)

    def encode_condition(
        self,
        image: Float[Tensor, "b 3 H W"],
        *,
        fps: float,
        motion_bucket_id: float,
        noise_aug_strength: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> SVDCondition:
        """The condition for images in [-1, 1]: `noise_aug_strength` * noise is added to the pixels before the VAE.

        `fps` is what the network is told. The pipeline's own call subtracts one: its fps=7 is fps=6 here.
        """
        noisy = image
        if noise_aug_strength:
            device = generator.device if generator is not None else image.device
            noise = torch.randn(image.shape, generator=generator, device=device, dtype=image.dtype)
            noisy = image + noise_aug_strength * noise.to(image.device)
        ids = image.new_tensor([fps, motion_bucket_id, noise_aug_strength]).expand(len(image), 3)
        return SVDCondition(self.encode_raw(noisy), self.embed_image(image), ids)

    def precondition(self, sigma: Float[Tensor, "b"]) -> tuple[Float[Tensor, "b"], ...]:
        """c_skip, c_out, c_in, c_noise at sigma."""
        return precondition(sigma)

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], sigma: Float[Tensor, "b"], condition: SVDCondition
    ) -> Float[Tensor, "b c f h w"]:
        """The network's x_0 given x_t = x_0 + sigma eps."""
        return predict_clean(self.unet, x_t, sigma, condition)


def _per_clip(values: Float[Tensor, "b"]) -> Float[Tensor, "b 1 1 1 1"]:
    return values[:, None, None, None, None]
