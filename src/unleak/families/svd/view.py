"""The view of Stable Video Diffusion.

Latents are `b c f h w` here and `b f c h w` at diffusers' border. The condition latents are *raw* VAE output, not
multiplied by the scaling factor: that is what the network was trained on, and the unit of every noise strength on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from unleak.core.process import Level
from unleak.families.image_vae import ImageVAE
from unleak.families.view import Levels, View, in_own_dtype, per_clip

__all__ = ["SVDCondition", "SVDView", "precondition"]

CLIP_SIZE = (224, 224)  # the pipeline resizes to this whatever the image encoder's own configuration says


@dataclass(frozen=True)
class SVDCondition:
    """What the network is told besides x_t: one raw image latent per clip or per frame, the CLIP embedding of the
    image, and (fps, motion bucket id, noise strength)."""

    latents: Float[Tensor, "b c h w"] | Float[Tensor, "b c f h w"]
    image_embeddings: Float[Tensor, "b 1 d"]
    added_time_ids: Float[Tensor, "b 3"]


def precondition(sigma: Float[Tensor, "b"]) -> tuple[Float[Tensor, "b"], ...]:
    """Return c_skip, c_out, c_in, c_noise of EDM (Karras et al. 2022, eq. 7) for a network that predicts v.

    sigma_data is 1.
    """
    root = (sigma**2 + 1).sqrt()
    return 1 / root**2, -sigma / root, 1 / root, 0.25 * sigma.log()


class SVDView(View):
    """The view of a `StableVideoDiffusionPipeline`.

    `frames_at_once` bounds the memory of the VAE. `unet` may be replaced by a wrapped network.
    """

    absent = "zeros, as its guidance has them"
    trained_on = "sigma"
    samples_posterior = True
    temporal = ("*temporal*",)
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "blocks": ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out"),
    }

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

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Make inputs of the network for clips of latents of this size, without data, where its weights are."""
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
        return self.vae.scaling_factor

    def encode_video(self, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode videos to model latents, every frame on its own: the mode of the posterior."""
        return self.vae.encode_video(video)

    def encode_posterior(
        self, video: Float[Tensor, "b f 3 H W"]
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Return mean and standard deviation of the model latents of videos in [-1, 1]."""
        return self.vae.encode_posterior(video)

    def encode_raw(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Encode images in [-1, 1] to raw VAE latents, which are not scaled: the mode of the posterior."""
        return self.vae.encode_raw(images)

    @torch.no_grad()
    def embed_image(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 d"]:
        """Compute the CLIP embedding of images in [-1, 1], by the pipeline's own resizing and normalisation."""
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
        prompts: Sequence[str] = (),
        num_frames: int = 0,
        *,
        generator: torch.Generator | None = None,
    ) -> SVDCondition:
        """Encode the condition with the pipeline's `fps`, `motion_bucket_id` and `noise_aug_strength`.

        As the pipeline's own call does, this subtracts one from `fps`, and adds `noise_aug_strength` * noise to the
        pixels before the VAE; the noise is from `generator`, or always the same.
        """
        del prompts, num_frames
        fps, bucket, strength = (
            float(self.arguments.get(name, usual))
            for name, usual in (("fps", 7), ("motion_bucket_id", 127), ("noise_aug_strength", 0.0))
        )
        noisy = image
        if strength:
            generator = generator or torch.Generator().manual_seed(0)
            noise = torch.randn(image.shape, generator=generator, device=generator.device, dtype=image.dtype)
            noisy = image + strength * noise.to(image.device)
        ids = image.new_tensor([fps - 1, bucket, strength]).expand(len(image), 3)
        return SVDCondition(self.encode_raw(noisy), self.embed_image(image), ids)

    def without_image(
        self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str] = (), num_frames: int = 0
    ) -> SVDCondition:
        """Encode the same with zeros for the image's latents and its embedding."""
        there = self.encode_condition(image, prompts, num_frames)
        zeros = torch.zeros_like(there.latents), torch.zeros_like(there.image_embeddings)
        return replace(there, latents=zeros[0], image_embeddings=zeros[1])

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: SVDCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return x_0 = c_skip x_t + c_out F(c_in x_t, c_noise; condition)."""
        c_skip, c_out, c_in, c_noise = precondition(Levels.of(level, x_t).edm_sigma)
        image = condition.latents
        if image.ndim == 4:
            image = repeat(image, "b c h w -> b c f h w", f=x_t.shape[2])
        prediction = in_own_dtype(
            self.unet,
            rearrange(torch.cat([per_clip(c_in, x_t) * x_t, image], dim=1), "b c f h w -> b f c h w"),
            c_noise,
            encoder_hidden_states=condition.image_embeddings,
            added_time_ids=condition.added_time_ids,
        )
        prediction = rearrange(prediction, "b f c h w -> b c f h w")
        return per_clip(c_skip, x_t) * x_t + per_clip(c_out, x_t) * prediction

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Decode clip by clip, `decode_chunk_size` frames at once if the arguments say so."""
        frames = latents.shape[2]
        chunk = self.arguments.get("decode_chunk_size") or frames
        each = rearrange(latents.to(self.pipe.vae.dtype), "b c f h w -> b 1 f c h w")
        videos = torch.cat([self.pipe.decode_latents(one, frames, chunk) for one in each])
        return rearrange(videos, "b c f h w -> b f c h w")
