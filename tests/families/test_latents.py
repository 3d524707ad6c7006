from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attach.watch import all_tiny
from unleak.families.latents import encode_video

ALL = {tiny.name: tiny for tiny in all_tiny()}


def scaled(pipe: Any, raw: Tensor) -> Tensor:
    return raw * pipe.vae.config.scaling_factor


def standardised(pipe: Any, raw: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1) for v in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    return (raw - mean) / std


def own(pipe: Any, raw: Tensor) -> Tensor:
    return pipe._normalize_latents(raw, pipe.vae.latents_mean, pipe.vae.latents_std, pipe.vae.config.scaling_factor)


def cosmos1(pipe: Any, raw: Tensor) -> Tensor:
    if pipe.vae.config.latents_mean is None:
        return raw * pipe.scheduler.config.sigma_data
    mean, std = (
        torch.tensor(v).view(1, raw.shape[1], -1, 1, 1)[:, :, : raw.shape[2]]
        for v in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    return (raw - mean) * pipe.scheduler.config.sigma_data / std


# How each pipeline itself brings an encoded clip among its latents.
NORMALISED = {
    "svd": scaled,
    "pia": scaled,
    "i2vgen-xl": scaled,
    "cogvideox-ddim": scaled,
    "cogvideox1.5-ddim": scaled,  # not the condition, which is divided
    "wan21": standardised,
    "wan22-5b": standardised,
    "skyreels-v2": standardised,
    "motif": standardised,
    "cosmos2": lambda pipe, raw: standardised(pipe, raw) * pipe.scheduler.config.sigma_data,
    "cosmos2.5-predict": standardised,
    "cosmos1": cosmos1,
    "hunyuan-concat": scaled,
    "hunyuan15": scaled,
    "kandinsky5": scaled,
    "ltx": own,
    "ltx2": own,
    "sana-wm": lambda pipe, raw: (
        (raw - pipe.vae.latents_mean.view(1, -1, 1, 1, 1))
        * pipe.vae.config.scaling_factor
        / pipe.vae.latents_std.view(1, -1, 1, 1, 1)
    ),
    "easyanimate-inpaint": scaled,
}


@pytest.mark.parametrize("name", NORMALISED)
def test_encode_video_normalises_as_the_pipeline_does(name: str) -> None:
    pipe = ALL[name].build()
    video = torch.rand(1, 9, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_video(pipe, video)
    with torch.no_grad():
        if name in ("svd", "pia", "i2vgen-xl"):
            raw = pipe.vae.encode(video[0]).latent_dist.mode().transpose(0, 1)[None]
        else:
            raw = pipe.vae.encode(video.transpose(1, 2)).latent_dist.mode()
    torch.testing.assert_close(latents, NORMALISED[name](pipe, raw), rtol=1e-5, atol=1e-5)
    assert latents.ndim == 5
    assert latents.isfinite().all()


def test_an_unknown_vae_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SimpleNamespace is not a VAE whose latents unleak knows.*AutoencoderKLWan"):
        encode_video(SimpleNamespace(vae=SimpleNamespace()), torch.zeros(1, 1, 3, 8, 8))
