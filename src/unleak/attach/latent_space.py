"""The name of a latent space, by which moments know the models they serve."""

from hashlib import sha256
from typing import Any

__all__ = ["latent_channels", "latent_space"]


def latent_space(vae: Any) -> str:
    """Name of the space a VAE encodes into, e.g. `AutoencoderKLTemporalDecoder/0.18215/4f1c09ab`.

    Class, scaling factor and a hash of the signs of its first weights, the encoder's: signs do not change with dtype or
    device, so a half-precision copy keeps the name and another VAE of the same shape has another. The hash is left out
    where the weights are not in memory (offloaded to the meta device).
    """
    weight = next(parameter for parameter in vae.parameters() if parameter.ndim > 1)
    signs = "" if weight.is_meta else sha256((weight.detach() > 0).cpu().numpy().tobytes()).hexdigest()[:8]
    return "/".join(filter(None, [vae.__class__.__name__, f"{vae.config.get('scaling_factor', 1):.6g}", signs]))


def latent_channels(vae: Any) -> int:
    """Number of channels of a VAE's latents."""
    return int(vae.config.get("latent_channels") or vae.config.z_dim)
