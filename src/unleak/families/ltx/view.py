"""The view of LTX-Video.

Latents are normalised VAE output, `b c f h w`, and packed into tokens at the network's border alone: a frame of them is
one frame of the video, then eight each. sigma is the rectified flow's, after any shift: x_t = (1 - sigma) x_0 + sigma
eps, and the network predicts eps - x_0. The image is the first frame of x_t, clean, and the time of its tokens is 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unleak.attach.schedule import nearest, started
from unleak.attach.seams import seam_of
from unleak.core.process import Level
from unleak.families.first_frame import begun_with, times_of_tokens
from unleak.families.flow import FlowView
from unleak.families.view import Levels

__all__ = ["LTXCondition", "LTXView"]

TEXT_TOKENS = 128


@dataclass(frozen=True)
class LTXCondition:
    """What the network is told besides x_t.

    latents: of the image; None for a video from text alone, whose first frame is as noisy as the others.
    fps: of the video, by which positions in time are told in seconds.
    level: sigma of the noise on `latents` that the network is told; None for none.
    """

    latents: Float[Tensor, "b c 1 h w"] | None
    text: Float[Tensor, "b l d"]
    fps: Float[Tensor, "b"]
    level: Float[Tensor, "b"] | None = None


class LTXView(FlowView):
    """The view of an `LTXImageToVideoPipeline` or `LTXConditionPipeline`.

    The two differ in the time of a token: eight frames a latent frame from 0 on, and for models since 0.9.5, which the
    second runs, that of the latent frame's first picture.
    """

    absent = "none: the first frame is noise like the others, as for a video of text alone"
    first_frame_is_clean = True
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "blocks": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
    }

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The transformer."""
        return {"transformer": self.pipe.transformer}

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Make inputs of the network for clips of latents of this size, without data, where its weights are."""
        config, at, tokens = network.config, next(network.parameters()).device, frames * height * width
        return {
            "hidden_states": torch.empty(clips, tokens, config.in_channels, device=at),
            "timestep": torch.empty(clips, tokens, device=at),
            "encoder_hidden_states": torch.empty(clips, TEXT_TOKENS, config.caption_channels, device=at),
            "encoder_attention_mask": torch.empty(clips, TEXT_TOKENS, dtype=torch.bool, device=at),
            "video_coords": torch.empty(clips, 3, tokens, device=at),
        }

    def shift(self, frames: int, height: int, width: int) -> float:
        """Return the shift that the pipeline samples latents of this size with: more tokens, more shift."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return float(config.get("shift") or 1.0)
        mu = self.mu(frames, height, width)
        return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu

    def mu(self, frames: int, height: int, width: int) -> float:
        """Return mu, by which the scheduler shifts: linear in the number of tokens, through two points."""
        config = self.pipe.scheduler.config
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (high - low) / (many - few)
        return float(frames * height * width * slope + (low - slope * few))

    @torch.no_grad()
    def encode_still(self, image: Float[Tensor, "b 3 H W"], num_frames: int) -> Float[Tensor, "b c 1 h w"]:
        """Encode images in [-1, 1] to the latents of `LTXCondition`, whatever the length of the video."""
        del num_frames
        return self.encode_video(image[:, None])

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode prompts to text tokens, zeros after the end of each."""
        tokens, there, *_ = self.pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=TEXT_TOKENS * (2 if self._since_095 else 1),
            device=self.pipe.text_encoder.device,
        )
        return torch.where(there[..., None].bool(), tokens, 0)

    def condition(
        self,
        still: Float[Tensor, "b c 1 h w"],
        text: Float[Tensor, "b l d"],
        image: Float[Tensor, "b 3 H W"],
        *,
        fps: Float[Tensor, "b"],
        level: Float[Tensor, "b"] | None = None,
    ) -> LTXCondition:
        """Put together what the network gets; of the images it sees only the encoded stills."""
        del image
        return LTXCondition(still, text, fps, level)

    def without_image(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> LTXCondition:
        """Encode the same without an image: the first frame is noise like all others."""
        return replace(self.encode_condition(image, prompts, num_frames), latents=None)

    def velocity(
        self, x_t: Float[Tensor, "b c f h w"], sigma: Float[Tensor, "b"], condition: LTXCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's eps - x_0; of the first frame it means something only without an image."""
        network = self.pipe.transformer
        f, h, w = x_t.shape[2:]
        steps = self.pipe.scheduler.config.num_train_timesteps
        sample, first = x_t, sigma
        if condition.latents is not None:
            sample = begun_with(condition.latents, x_t)
            first = torch.zeros_like(sigma) if condition.level is None else condition.level.to(sigma)
        prediction = network(
            hidden_states=rearrange(sample, "b c f h w -> b (f h w) c").to(network.dtype),
            encoder_hidden_states=condition.text.to(network.dtype),
            timestep=times_of_tokens(sigma * steps, first * steps, frames=f, each=h * w),
            # A layer norm ends T5, so that no token of a prompt is all zeros.
            encoder_attention_mask=condition.text.ne(0).any(-1),
            **self._places(f, h, w, condition.fps.to(x_t.device)),
            return_dict=False,
        )[0]
        return rearrange(prediction, "b (f h w) c -> b c f h w", f=f, h=h)

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: LTXCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's x_0, which begins with the image where one is given."""
        x_0 = super().predict_clean(x_t, level, condition)
        return x_0 if condition.latents is None else begun_with(condition.latents, x_0)

    def levels(self, start: str, steps: int) -> tuple[Level, ...]:
        """Return the levels that the pipeline steps through; the size of the video decides on its shift."""
        if not self.pipe.scheduler.config.get("use_dynamic_shifting"):
            return super().levels(start, steps)
        usual = signature(type(self.pipe).__call__).parameters
        frames, height, width = (
            int(self.arguments.get(name, usual[name].default)) for name in ("num_frames", "height", "width")
        )
        space, time = self.pipe.vae_spatial_compression_ratio, self.pipe.vae_temporal_compression_ratio
        mu = self.mu((frames - 1) // time + 1, height // space, width // space)
        scheduler = started(self.pipe.scheduler, self.level(start), "auto")
        scheduler.set_timesteps(**seam_of(self.pipe).grid(steps), mu=mu)
        return tuple(nearest(scheduler, self.level_of(sigma)) for sigma in scheduler.sigmas.tolist() if sigma > 0)

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        vae = self.pipe.vae
        moments = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        # A VAE that denoises as it decodes is told so much; the noise that the pipeline would add is left away.
        time = None
        if vae.config.timestep_conditioning:
            time = latents.new_tensor([self.arguments.get("decode_timestep", 0.0)])
        return vae.decode(self.pipe._denormalize_latents(latents, *moments), time, return_dict=False)[0]

    def _places(self, f: int, h: int, w: int, fps: Float[Tensor, "b"]) -> dict[str, Any]:
        """Make the arguments that say where in time (seconds) and in the picture (pixels) each token is."""
        space, time = self.pipe.vae_spatial_compression_ratio, self.pipe.vae_temporal_compression_ratio
        if not self._since_095:
            seconds = (time / fps)[:, None, None, None, None]
            return {"num_frames": f, "height": h, "width": w, "rope_interpolation_scale": (seconds, space, space)}
        begins = (torch.arange(f, device=fps.device) * time + 1 - time).clamp(min=0).float()
        sides = (torch.arange(n, device=fps.device) * float(space) for n in (h, w))
        grid = torch.stack(torch.meshgrid(begins, *sides, indexing="ij")).flatten(1).repeat(len(fps), 1, 1)
        grid[:, 0] *= (1 / fps)[:, None]
        return {"video_coords": grid}

    @property
    def _since_095(self) -> bool:
        return any(base.__name__ == "LTXConditionPipeline" for base in type(self.pipe).__mro__)
