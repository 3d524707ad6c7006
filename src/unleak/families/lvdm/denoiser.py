"""DynamiCrafter and VideoCrafter1 as denoisers: what training, diagnosis and parity tests ask of a family.

Latents are scaled VAE output, `b c f h w`. `t` is an index of the training schedule, 0 to 999, where
x_t = alpha_t s_t x_0 + sigma_t eps with s_t the dynamic rescale; x_0 is what the VAE gives, without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unleak.core.timenoise import TimeNoise

__all__ = ["LVDMCondition", "LVDMDenoiser", "dropped"]


@dataclass(frozen=True)
class LVDMCondition:
    """What the network is told besides x_t."""

    text: Float[Tensor, "b l d"]
    image: Float[Tensor, "b k d"]
    """The projected CLIP features."""
    latents: Float[Tensor, "b c f h w"] | None = None
    """Concatenated with x_t (DynamiCrafter), in the same units."""
    fps: Float[Tensor, " b"] | Int[Tensor, " b"] | None = None
    """Hz, or the frame stride; None: the network's own."""

    def noised(
        self,
        t: Float[Tensor, " b"],
        *,
        tokens: TimeNoise | None = None,
        latents: TimeNoise | None = None,
        generator: torch.Generator | None = None,
    ) -> "LVDMCondition":
        """With TimeNoise at times `t` in [0, 1] on the image tokens, on the latents, or on both.

        Their strengths are drawn apart, tokens first; the noise is independent from frame to frame.
        """
        image = self.image if tokens is None else tokens(self.image, t, generator)[0]
        if latents is None:
            return replace(self, image=image)
        assert self.latents is not None
        return replace(self, image=image, latents=latents(self.latents, t, generator)[0])


def dropped(uniform: Float[Tensor, " b"], share: float) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Which clips are trained without their text and which without their image: a `share` lacks the text alone, one
    lacks both, one the image alone."""
    return uniform < 2 * share, (share <= uniform) & (uniform < 3 * share)


class LVDMDenoiser:
    """The denoiser view of a pipeline. Holds it, changes nothing in it.

    `unet` may be replaced by a wrapped network (mixed precision, several processes).
    """

    token_noise: ClassVar[TimeNoise | None] = None
    latent_noise: ClassVar[TimeNoise | None] = None
    trained_on: ClassVar[str] = "timestep"
    noised: ClassVar[tuple[str, ...]] = ("tokens",)
    """What of the condition TimeNoise can be put on, first what the paper puts it on."""
    trains_projection: ClassVar[bool] = False
    temporal: ClassVar[tuple[str, ...]] = (
        *("*.temporal.*", "first_attention.*", "middle_block.2.*"),
        *("[io]*put_blocks.[0-9].2.*", "[io]*put_blocks.[0-9][0-9].2.*"),
    )
    """Patterns of the parameters that work along time."""
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "blocks": ("to_q", "to_k", "to_v", "to_k_ip", "to_v_ip", "to_out.0", "net.0.proj", "net.2"),
    }

    def __init__(self, pipe: Any, *, unet: Callable[..., Any] | None = None):
        self.pipe = pipe
        self.unet = pipe.unet if unet is None else unet

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is trained, by its name in the pipeline."""
        parts = {"unet": self.pipe.unet}
        return parts | ({"image_projection": self.pipe.image_projection} if self.trains_projection else {})

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Inputs of the network for so many clips of latents of this size, without data, where its weights are."""
        config, at = network.config, next(network.parameters()).device
        tokens = config.text_tokens + config.image_tokens * (frames if config.image_tokens_per_frame else 1)
        return {
            "sample": torch.empty(clips, config.in_channels, frames, height, width, device=at),
            "timestep": torch.empty(clips, dtype=torch.int64, device=at),
            "encoder_hidden_states": torch.empty(clips, tokens, config.cross_attention_dim, device=at),
        }

    @property
    def concatenates(self) -> bool:
        """Whether the image's latents stand beside the noisy ones."""
        config = self.pipe.unet.config
        return bool(config.in_channels > config.out_channels)

    @property
    def scaling_factor(self) -> float:
        """Model latents = scaling factor * raw VAE output."""
        return float(self.pipe.vae.config.scaling_factor)

    def time(self, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Timesteps as TimeNoise counts them, in [0, 1)."""
        return t / self.pipe.scheduler.config.num_train_timesteps

    def encode_video(
        self,
        video: Float[Tensor, "b f 3 H W"],
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c f h w"]:
        """Model latents of videos in [-1, 1], every frame on its own: the posterior's mode, or a sample of it."""
        frames = rearrange(video, "b f c h w -> (b f) c h w")
        latents = self.pipe.encode_latents(frames, videos=len(frames), sample=sample, generator=generator)
        return rearrange(latents.to(video.dtype), "(b f) c h w -> b c f h w", b=len(video))

    def encode_posterior(
        self, video: Float[Tensor, "b f 3 H W"]
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Mean and standard deviation of the model latents of videos in [-1, 1]."""
        frames = rearrange(video, "b f c h w -> (b f) c h w")
        mean, std = (
            rearrange((each * self.scaling_factor).to(video.dtype), "(b f) c h w -> b c f h w", b=len(video))
            for each in self.pipe.raw_moments(frames)
        )
        return mean, std

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Text tokens."""
        tokens: Tensor = self.pipe.encode_prompt(list(prompts))
        return tokens

    def encode_condition(
        self,
        image: Float[Tensor, "b 3 H W"],
        prompt: str | list[str] = "",
        *,
        num_frames: int,
        fps: float | None = None,
        image_dropped: Bool[Tensor, " b"] | None = None,
    ) -> LVDMCondition:
        """The condition for images in [-1, 1], and a prompt for all or for each. Gradients reach the image projection.

        `image_dropped`: clips whose image tokens are those of no image; concatenated latents are never dropped.
        """
        prompts = [prompt] * len(image) if isinstance(prompt, str) else prompt
        if len(prompts) != len(image):
            raise ValueError(f"{len(prompts)} prompts for {len(image)} images: give one for each, or one for all.")
        seen = image if image_dropped is None else torch.where(image_dropped[:, None, None, None], 0, image)
        tokens = self.pipe.project_image(self.pipe.encode_image(seen), num_frames)
        latents = self.pipe.condition_latents(image, None, num_frames, videos=len(image), sample=False)
        return LVDMCondition(
            self.pipe.encode_prompt(prompts).to(image.dtype),
            tokens.to(image.dtype),
            None if latents is None else latents.to(image.dtype),
            None if fps is None else image.new_full((len(image),), fps),
        )

    def noise_condition(
        self, condition: LVDMCondition, t: Int[Tensor, " b"], generator: torch.Generator | None = None
    ) -> LVDMCondition:
        """The paper's TimeNoise for this family."""
        return condition.noised(self.time(t), tokens=self.token_noise, latents=self.latent_noise, generator=generator)

    def add_noise(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c f h w"]:
        """x_t."""
        return self.pipe.scheduler.add_noise(x_0, eps, t)

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c f h w"]:
        """What the network is trained to predict: eps, or v of the rescaled x_0."""
        scheduler = self.pipe.scheduler
        return eps if scheduler.config.prediction_type == "epsilon" else scheduler.velocity(x_0, eps, t)

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, " b"], condition: LVDMCondition
    ) -> Float[Tensor, "b c f h w"]:
        """What the network says, in the units of `target`."""
        sample = x_t if condition.latents is None else torch.cat([x_t, condition.latents], dim=1)
        tokens = torch.cat([condition.text, condition.image], dim=1)
        return self.unet(sample, t, encoder_hidden_states=tokens, fps=condition.fps, return_dict=False)[0]

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], t: Int[Tensor, " b"], condition: LVDMCondition
    ) -> Float[Tensor, "b c f h w"]:
        """The network's x_0."""
        return self.pipe.scheduler.predict_clean(self.predict(x_t, t, condition), x_t, t)
