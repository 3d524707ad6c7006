"""The VAE of Wan 2.1, which half of all video models share: 8 times smaller in space, 4 in time, 16 channels."""

from diffusers import AutoencoderKLWan

__all__ = ["wan_vae"]


def wan_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
