"""EasyAnimate 5.1, which makes the masked part of a video."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLMagvit,
    EasyAnimateInpaintPipeline,
    EasyAnimateTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, seeded
from tests.tiny.text import T5_DIM

__all__ = ["TINY"]


@seeded
def _build_easyanimate() -> EasyAnimateInpaintPipeline:
    vae = AutoencoderKLMagvit(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    vae.register_to_config(cache_mag_vae=True)  # the pipeline asks for it, the class does not set it
    # Noise, the mask, the masked video.
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4 + 1 + 4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=T5_DIM,
        num_layers=1,
        mmdit_layers=1,
        sample_width=4,
        sample_height=4,
        patch_size=2,
        add_noise_in_inpaint_model=True,
    )
    return EasyAnimateInpaintPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def _call_easyanimate(pipe: Any, **changes: Any) -> Tensor:
    # Known is the first frame: the mask is 255 where the video is to be made.
    video = torch.zeros(1, 3, 9, 16, 32)
    video[:, :, :1] = embeds(1, 3, 1, 16, 32).sigmoid()
    mask = torch.full((1, 1, 9, 16, 32), 255.0)
    mask[:, :, 0] = 0
    seen = torch.ones(1, 8, dtype=torch.long)
    settings = {
        "video": video,
        "mask_video": mask,
        "prompt_embeds": embeds(1, 8, T5_DIM),
        "prompt_attention_mask": seen,
        "negative_prompt_embeds": embeds(1, 8, T5_DIM, seed=2),
        "negative_prompt_attention_mask": seen,
        "height": 16,
        "width": 32,
        "num_frames": 9,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


TINY = [Tiny("easyanimate-inpaint", _build_easyanimate, _call_easyanimate)]
