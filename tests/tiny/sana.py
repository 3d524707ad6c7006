"""SANA-Video image-to-video and SANA-WM, a world model moved by a camera."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaImageToVideoPipeline,
    SanaVideoTransformer3DModel,
    SanaWMPipeline,
    SanaWMTransformer3DModel,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]

WORDS, TEXT_DIM = 8, 8


def _told(*lead: int) -> dict[str, Any]:
    """What Gemma might have said."""
    seen = torch.ones(lead[0], WORDS, dtype=torch.long)
    return {
        "prompt_embeds": embeds(*lead, WORDS, TEXT_DIM),
        "prompt_attention_mask": seen,
        "negative_prompt_embeds": embeds(*lead, WORDS, TEXT_DIM, seed=2),
        "negative_prompt_attention_mask": seen,
    }


@seeded
def _build_video(scheduler: Any) -> SanaImageToVideoPipeline:
    transformer = SanaVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=TEXT_DIM,
        mlp_ratio=1.0,
        sample_size=8,
        patch_size=(1, 2, 2),
        rope_max_seq_len=32,
    )
    return SanaImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=wan_vae(),
        transformer=transformer,
        scheduler=scheduler,
    )


def _euler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=8.0)


def _dpm() -> DPMSolverMultistepScheduler:
    """The default of the conversion."""
    return DPMSolverMultistepScheduler(flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction")


def _call_video(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(32, 32),
        "negative_prompt": None,
        "height": 32,
        "width": 32,
        "frames": 9,
        "num_inference_steps": 4,
        "use_resolution_binning": False,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | _told(1) | changes).frames


@seeded
def _build_wm() -> SanaWMPipeline:
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),  # each twice the one before, as upsampling halves them
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    transformer = SanaWMTransformer3DModel(
        in_channels=4,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=TEXT_DIM,
        mlp_ratio=1.0,
    )
    return SanaWMPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=_euler(),
    )


def _call_wm(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(64, 96),
        "prompt": "",
        "action": "w-16",
        "intrinsics": [60.0, 60.0, 48.0, 32.0],
        "height": 64,
        "width": 96,
        "num_frames": 17,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | _told(1, 1) | changes).frames


TINY = [
    Tiny("sana-video", lambda: _build_video(_euler()), _call_video, pair=lambda: _told(2)),
    Tiny("sana-video-dpm", lambda: _build_video(_dpm()), _call_video, pair=lambda: _told(2)),
    Tiny("sana-wm", _build_wm, _call_wm),
]
