"""The view of Wan 2.1 and 2.2.

Latents are normalised VAE output, `b c f h w`: a frame of them is one frame of the video, then four each. sigma is the
rectified flow's, after any shift: x_t = (1 - sigma) x_0 + sigma eps, and the network predicts eps - x_0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from unleak.core.process import Level
from unleak.core.timenoise import TimeNoise
from unleak.families.first_frame import begun_with, times_of_tokens
from unleak.families.flow import FlowView
from unleak.families.view import GREY, Levels

__all__ = ["WanCondition", "WanView"]

TEXT_TOKENS = 512


@dataclass(frozen=True)
class WanCondition:
    """What the network is told besides x_t.

    latents: of the video that begins with the image and is grey after it; of the image alone (f = 1) for Wan 2.2 5B.
    level: of Wan 2.2 5B, sigma of the noise on `latents` that the network is told; None for none.
    """

    latents: Float[Tensor, "b c f h w"]
    text: Float[Tensor, "b l d"]
    image_embeddings: Float[Tensor, "b n e"] | None = None
    level: Float[Tensor, "b"] | None = None


class WanView(FlowView):
    """The view of a `WanImageToVideoPipeline`.

    experts: of Wan 2.2 A14B, which of the two networks are meant: `high` above the boundary sigma, `low` below it.
    """

    absent = "a grey picture, for the family knows no absence"
    latent_noise: ClassVar[TimeNoise] = TimeNoise(100, 5)
    experts_known = True
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
        "blocks": ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj", "ffn.net.0.proj", "ffn.net.2"),
    }

    def __init__(
        self,
        pipe: Any,
        arguments: Mapping[str, Any] | None = None,
        *,
        experts: Literal["high", "low", "both"] | None = None,
    ):
        super().__init__(pipe, arguments)
        self.boundary: float | None = pipe.config.boundary_ratio
        if experts is not None and self.boundary is None:
            raise ValueError(f"experts: {experts}: this model has a single network; leave experts away")
        self.experts = experts or ("high" if self.boundary is None else "both")

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks of the chosen experts, by their names in the pipeline."""
        names = {"high": ("transformer",), "low": ("transformer_2",), "both": ("transformer", "transformer_2")}
        return {name: getattr(self.pipe, name) for name in names[self.experts]}

    @staticmethod
    def example_inputs(network: Any, clips: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        """Make inputs of the network for clips of latents of this size, without data, where its weights are."""
        config, at = network.config, next(network.parameters()).device
        inputs = {
            "hidden_states": torch.empty(clips, config.in_channels, frames, height, width, device=at),
            "timestep": torch.empty(clips, device=at),
            "encoder_hidden_states": torch.empty(clips, TEXT_TOKENS, config.text_dim, device=at),
        }
        if config.image_dim is not None:  # the patches of CLIP's 224 pixels and its class token
            inputs["encoder_hidden_states_image"] = torch.empty(clips, 257, config.image_dim, device=at)
        return inputs

    @property
    def sigmas(self) -> tuple[float, float]:
        """Least and greatest sigma that the chosen experts are for."""
        if self.boundary is None:
            return 0.0, 1.0
        return {"high": (self.boundary, 1.0), "low": (0.0, self.boundary), "both": (0.0, 1.0)}[self.experts]

    def shift(self, frames: int, height: int, width: int) -> float:
        """Return the timestep shift that the pipeline samples with, whatever the size of the latents."""
        del frames, height, width
        config = self.pipe.scheduler.config
        return float(config.get("flow_shift") or config.get("shift") or 1.0)

    @property
    def first_frame_is_clean(self) -> bool:
        """Whether the image stands in the noisy video itself, as its first frame (Wan 2.2 5B)."""
        return bool(self.pipe.config.expand_timesteps)

    @torch.no_grad()
    def encode_still(self, image: Float[Tensor, "b 3 H W"], num_frames: int) -> Float[Tensor, "b c f h w"]:
        """Encode images in [-1, 1] to the latents of `WanCondition`."""
        if self.first_frame_is_clean:
            return self.encode_video(image[:, None])
        still = image.new_zeros((len(image), num_frames, *image.shape[1:]))
        still[:, 0] = image
        return self.encode_video(still)

    @torch.no_grad()
    def embed_image(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n e"] | None:
        """Return what CLIP says of images in [-1, 1]; None where the network does not ask (Wan 2.2)."""
        network: Any = next(iter(self.networks.values()))
        if network.config.image_dim is None:
            return None
        pixels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        pictures = [Image.fromarray(one) for one in rearrange(pixels, "b c h w -> b h w c").cpu().numpy()]
        embeddings: Tensor = self.pipe.encode_image(pictures, self.pipe.image_encoder.device)
        return embeddings.float()

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode prompts to text tokens, zeros after the end of each."""
        tokens, _ = self.pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=TEXT_TOKENS,
            device=self.pipe.text_encoder.device,
        )
        return tokens

    def condition(
        self,
        still: Float[Tensor, "b c f h w"],
        text: Float[Tensor, "b l d"],
        image: Float[Tensor, "b 3 H W"],
        *,
        fps: Float[Tensor, "b"],
        level: Float[Tensor, "b"] | None = None,
    ) -> WanCondition:
        """Put together what the network gets of images and their encoded stills; it gets no frame rate."""
        del fps
        return WanCondition(still, text, self.embed_image(image), level)

    def without_image(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> WanCondition:
        """Encode the same for a grey picture."""
        condition: WanCondition = self.encode_condition(torch.full_like(image, GREY), prompts, num_frames)
        return condition

    def velocity(
        self, x_t: Float[Tensor, "b c f h w"], sigma: Float[Tensor, "b"], condition: WanCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's eps - x_0; each clip by the expert for its sigma."""
        if self.experts != "both" or self.boundary is None:
            return self._predict(next(iter(self.networks.values())), x_t, sigma, condition)
        out = torch.empty_like(x_t)
        high = sigma >= self.boundary
        for network, chosen in zip(self.networks.values(), (high, ~high), strict=True):
            if chosen.any():
                told = _chosen(condition, chosen)
                out[chosen] = self._predict(network, x_t[chosen], sigma[chosen], told).to(out)
        return out

    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: WanCondition
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's x_0, which begins with the image where that is the first frame."""
        x_0 = super().predict_clean(x_t, level, condition)
        return begun_with(condition.latents, x_0) if self.first_frame_is_clean else x_0

    def _decoded(self, latents: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 3 F H W"]:
        vae = self.pipe.vae
        mean, std = (
            latents.new_tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return vae.decode(latents * std + mean, return_dict=False)[0]

    def _predict(self, network: Any, x_t: Tensor, sigma: Tensor, condition: WanCondition) -> Tensor:
        b, _, f, h, w = x_t.shape
        timestep = sigma * self.pipe.scheduler.config.num_train_timesteps
        if self.first_frame_is_clean:
            sample = begun_with(condition.latents, x_t)
            _, ph, pw = network.config.patch_size
            first = torch.zeros_like(timestep) if condition.level is None else condition.level.to(timestep)
            first = first * self.pipe.scheduler.config.num_train_timesteps
            timestep = times_of_tokens(timestep, first, frames=f, each=(h // ph) * (w // pw))
        else:
            factor = self.pipe.vae_scale_factor_temporal
            known = x_t.new_zeros((b, factor, f, h, w))
            known[:, :, 0] = 1
            sample = torch.cat([x_t, known, condition.latents.to(x_t)], dim=1)
        prediction: Tensor = network(
            hidden_states=sample.to(network.dtype),
            timestep=timestep,
            encoder_hidden_states=condition.text.to(network.dtype),
            encoder_hidden_states_image=(
                None if condition.image_embeddings is None else condition.image_embeddings.to(network.dtype)
            ),
            return_dict=False,
        )[0]
        return prediction


def _chosen(condition: WanCondition, clips: Bool[Tensor, "b"]) -> WanCondition:
    embeddings = condition.image_embeddings
    told = None if embeddings is None else embeddings[clips]
    return WanCondition(condition.latents[clips], condition.text[clips], told)
