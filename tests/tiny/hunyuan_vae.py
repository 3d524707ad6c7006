"""The VAE of HunyuanVideo, which Kandinsky shares: 8 times smaller in space, 4 in time."""

from diffusers import AutoencoderKLHunyuanVideo

__all__ = ["hunyuan_vae"]


def hunyuan_vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
