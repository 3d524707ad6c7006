"""LTX-Video: image to video, conditions anywhere in time (0.9.5 and later), and long videos by windows."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXEulerAncestralRFScheduler,
    LTXI2VLongMultiPromptPipeline,
    LTXImageToVideoPipeline,
    LTXVideoTransformer3DModel,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import T5_DIM, t5, words

__all__ = ["TINY"]


def _vae() -> AutoencoderKLLTXVideo:
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
    )
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
    return vae


def _transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=T5_DIM,
    )


@seeded
def _image_to_video() -> LTXImageToVideoPipeline:
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    return LTXImageToVideoPipeline(scheduler, _vae(), None, None, _transformer())


@seeded
def _condition() -> LTXConditionPipeline:
    return LTXConditionPipeline(FlowMatchEulerDiscreteScheduler(), _vae(), None, None, _transformer())


@seeded
def _long() -> LTXI2VLongMultiPromptPipeline:
    return LTXI2VLongMultiPromptPipeline(LTXEulerAncestralRFScheduler(), _vae(), t5(), words(), _transformer())


def _call(pipe: Any, **changes: Any) -> Tensor:
    arguments = {
        "image": photo(64, 32),
        "prompt_embeds": embeds(1, 4, T5_DIM),
        "prompt_attention_mask": torch.ones(1, 4),
        "negative_prompt_embeds": embeds(1, 4, T5_DIM, seed=2),
        "negative_prompt_attention_mask": torch.ones(1, 4),
        "height": 64,
        "width": 32,
        "num_frames": 9,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


def _call_long(pipe: Any, **changes: Any) -> Tensor:
    """Two windows of three latent frames that share one."""
    arguments = {
        "cond_image": photo(64, 32),
        "prompt": "a dog | runs",
        "height": 64,
        "width": 32,
        "num_frames": 17,
        "temporal_tile_size": 12,
        "temporal_overlap": 4,
        "num_inference_steps": 4,
        "generator": noise(),
        "seed": None,
    }
    return pipe(**arguments | changes).frames


TINY = [
    Tiny("ltx", _image_to_video, _call),
    Tiny("ltx-condition", _condition, _call),
    Tiny("ltx-long", _long, _call_long),
]
