"""The view that DynamiCrafter and VideoCrafter1 share.

Latents are scaled VAE output, `b c f h w`. At a level (alpha, sigma) x_t = alpha s x_0 + sigma eps, where s is the
dynamic rescale of the level's timestep; x_0 is what the VAE gives, without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unleak.core.process import Level
from unleak.core.timenoise import TimeNoise
from unleak.families.timesteps import TimestepView
from unleak.families.view import Levels, in_own_dtype

__all__ = ["LVDMCondition", "LVDMView", "dropped"]


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


class LVDMView(TimestepView):
    """The view of a DynamiCrafter or VideoCrafter1 pipeline. `unet` may be replaced by a wrapped network."""

    absent = "the tokens of no image, zeros for its latents"
    token_noise: ClassVar[TimeNoise | None] = None
    latent_noise: ClassVar[TimeNoise | None] = None
    trained_on = "timestep"
    noised: ClassVar[tuple[str, ...]] = ("tokens",)
    samples_posterior = True
    trains_projection: ClassVar[bool] = False
    temporal = (
        *("*.temporal.*", "first_attention.*", "middle_block.2.*"),
        *("[io]*put_blocks.[0-9].2.*", "[io]*put_blocks.[0-9][0-9].2.*"),
    )
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "blocks": ("to_q", "to_k", "to_v", "to_k_ip", "to_v_ip", "to_out.0", "net.0.proj", "net.2"),
    }

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The U-Net, and the image projection where that is trained too."""
        parts = {"unet": self.pipe.unet}
        return parts | ({"image_projection": self.pipe.image_projection} if self.trains_projection else {})

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Make inputs of the network for clips of latents of this size, without data, where its weights are."""
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

    def encode_video(
        self,
        video: Float[Tensor, "b f 3 H W"],
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c f h w"]:
        """Encode videos to model latents, every frame on its own: the posterior's mode, or a sample of it."""
        frames = rearrange(video, "b f c h w -> (b f) c h w")
        latents = self.pipe.encode_latents(frames, videos=len(frames), sample=sample, generator=generator)
        return rearrange(latents.to(video.dtype), "(b f) c h w -> b c f h w", b=len(video))

    def encode_posterior(
        self, video: Float[Tensor, "b f 3 H W"]
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Return mean and standard deviation of the model latents of videos in [-1, 1]."""
        frames = rearrange(video, "b f c h w -> (b f) c h w")
        mean, std = (
            rearrange((each * self.scaling_factor).to(video.dtype), "(b f) c h w -> b c f h w", b=len(video))
            for each in self.pipe.raw_moments(frames)
        )
        return mean, std

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode prompts to text tokens."""
        tokens: Tensor = self.pipe.encode_prompt(list(prompts))
        return tokens

    def encode_condition(
        self,
        image: Float[Tensor, "b 3 H W"],
        prompts: Sequence[str],
        num_frames: int,
        *,
        image_dropped: Bool[Tensor, " b"] | None = None,
    ) -> LVDMCondition:
        """Encode the condition with the pipeline's frame rate or stride, if the arguments have it.

        Gradients reach the image projection. `image_dropped` says which clips get the image tokens of no image;
        concatenated latents are never dropped.
        """
        if len(prompts) != len(image):
            raise ValueError(f"{len(prompts)} prompts for {len(image)} images: give one for each.")
        seen = image if image_dropped is None else torch.where(image_dropped[:, None, None, None], 0, image)
        tokens = self.pipe.project_image(self.pipe.encode_image(seen), num_frames)
        latents = self.pipe.condition_latents(image, None, num_frames, videos=len(image), sample=False)
        rate = self.arguments.get(self.pipe.config.condition_on)
        return LVDMCondition(
            self.pipe.encode_prompt(list(prompts)).to(image.dtype),
            tokens.to(image.dtype),
            None if latents is None else latents.to(image.dtype),
            None if rate is None else image.new_full((len(image),), float(rate)),
        )

    def without_image(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> LVDMCondition:
        """Encode the same with the tokens of no image, and zeros for its latents."""
        none = torch.ones(len(image), dtype=torch.bool, device=image.device)
        there = self.encode_condition(image, prompts, num_frames, image_dropped=none)
        return replace(there, latents=None if there.latents is None else torch.zeros_like(there.latents))

    def noise_condition(
        self, condition: LVDMCondition, levels: Levels, generator: torch.Generator | None = None
    ) -> LVDMCondition:
        """Put the paper's TimeNoise for this family on a condition."""
        time = self.time(levels)
        return condition.noised(time, tokens=self.token_noise, latents=self.latent_noise, generator=generator)

    def add_noise(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return x_t = alpha s x_0 + sigma eps at the nearest timestep."""
        return self.pipe.scheduler.add_noise(x_0, eps, self._t(level, x_0))

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network is trained to predict: eps, or v of the rescaled x_0."""
        scheduler = self.pipe.scheduler
        epsilon = scheduler.config.prediction_type == "epsilon"
        return eps if epsilon else scheduler.velocity(x_0, eps, self._t(level, x_0))

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: LVDMCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network says, in the units of `target`."""
        sample = x_t if condition.latents is None else torch.cat([x_t, condition.latents], dim=1)
        tokens = torch.cat([condition.text, condition.image], dim=1)
        return in_own_dtype(self.unet, sample, self._t(level, x_t), encoder_hidden_states=tokens, fps=condition.fps)

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: LVDMCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's x_0, the rescale taken off."""
        return self.pipe.scheduler.predict_clean(self.predict(x_t, level, condition), x_t, self._t(level, x_t))
