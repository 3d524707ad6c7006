"""Encode videos to model latents with the VAE of any family: statistics live where the denoiser does."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unleak.families.image_vae import ImageVAE

__all__ = ["encode_video"]

FRAME_BY_FRAME = {"AutoencoderKL", "AutoencoderKLTemporalDecoder"}
"""VAEs of images: Stable Video Diffusion, PIA, I2VGen-XL, AnimateDiff."""

WHOLE = {
    "AutoencoderKLCogVideoX": "CogVideoX, ConsisID",
    "AutoencoderKLCosmos": "Cosmos 1",
    "AutoencoderKLHunyuanVideo": "HunyuanVideo, FramePack, Kandinsky 5 and 6",
    "AutoencoderKLHunyuanVideo15": "HunyuanVideo 1.5",
    "AutoencoderKLLTX2Video": "LTX-2, SANA-WM",
    "AutoencoderKLLTXVideo": "LTX-Video",
    "AutoencoderKLMagvit": "EasyAnimate",
    "AutoencoderKLWan": "Wan, SkyReels V2, Cosmos 2, 2.5 and 3, SANA-Video, Motif",
}
"""VAEs of videos -> the families that have them."""


@torch.no_grad()
def encode_video(pipe: Any, video: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c f2 h w"]:
    """Encode videos in [-1, 1] to model latents (what the denoiser sees), normalised as `pipe` does.

    They are the mode of the posterior.

    Of the pipeline only the VAE and the scheduler's configuration are used. ValueError for a VAE that is not known.
    """
    vae = pipe.vae
    names = [base.__name__ for base in type(vae).__mro__]
    if FRAME_BY_FRAME.intersection(names):
        return ImageVAE(vae).encode_video(video)
    if not WHOLE.keys() & set(names):
        raise ValueError(
            f"{type(vae).__name__} is not a VAE whose latents unleak knows to normalise: it knows"
            f" {', '.join(sorted(FRAME_BY_FRAME | WHOLE.keys()))}."
        )
    posterior = vae.encode(rearrange(video, "b f c h w -> b c f h w").to(vae.device, vae.dtype)).latent_dist
    return _normalised(pipe, posterior.mode()).to(video.dtype)


def _normalised(pipe: Any, raw: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """(raw - mean) * scale / std with what the VAE has of these, in units of the scheduler's sigma_data (Cosmos)."""
    vae, sigma_data = pipe.vae, pipe.scheduler.config.get("sigma_data", 1.0)
    scale = (vae.config.get("scaling_factor") or 1.0) * sigma_data

    def moment(name: str) -> Tensor | None:
        values = getattr(vae, name, None)
        values = vae.config.get(name) if values is None else values
        if values is None:
            return None
        # One value a channel; Cosmos 1 has one for every latent frame too.
        return torch.as_tensor(values).to(raw).view(1, raw.shape[1], -1, 1, 1)[:, :, : raw.shape[2]]

    mean, std = moment("latents_mean"), moment("latents_std")
    return raw * scale if mean is None or std is None else (raw - mean) * scale / std
