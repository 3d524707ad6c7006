"""Animate-Anything, ours."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor
from transformers import CLIPTokenizer

from tests.tiny.model import noise, photo, seeded
from tests.tiny.text import CLIP_DIM, clip
from unleak.families.animate_anything.pipeline import AnimateAnythingPipeline
from unleak.families.animate_anything.unet import AnimateAnythingUNet

__all__ = ["call", "tiny_animate_anything"]

WIDTHS = (4, 8)
_WORDS = ("<|startoftext|>", "<|endoftext|>", "a</w>", "d", "o", "g</w>", "do", "dog</w>")


@seeded
def tiny_animate_anything(**unet: Any) -> AnimateAnythingPipeline:
    """`unet`: changes to the network's configuration."""
    network = {
        "sample_size": 8,
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "cross_attention_dim": CLIP_DIM,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
        "motion_mask": True,
        "motion_strength": True,
    }
    pipe = AnimateAnythingPipeline(
        vae=AutoencoderKL(
            block_out_channels=WIDTHS,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
        ),
        text_encoder=clip(),
        tokenizer=CLIPTokenizer(
            vocab={word: index for index, word in enumerate(_WORDS)},
            merges=[("d", "o"), ("do", "g</w>")],
            unk_token="<|endoftext|>",
            pad_token="<|endoftext|>",
            model_max_length=8,
        ),
        unet=AnimateAnythingUNet(**network | unet),
        # As released.
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing="trailing",
        ),
    )
    for layer in pipe.unet.modules():  # temporal convolutions begin as nothing
        for parameter in layer.parameters(recurse=False):
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def call(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog",
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(photo(16, 24), **settings | changes).frames
