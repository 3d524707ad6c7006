"""Kandinsky 5 (image to video) and 6 (image to video and audio): channels last."""

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5I2VPipeline,
    Kandinsky5Transformer3DModel,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    MMAudioVAE,
    MMAudioVocoder,
)
from torch import Tensor

from tests.tiny.hunyuan_vae import hunyuan_vae
from tests.tiny.model import Tiny, embeds, noise, photo, seeded

__all__ = ["TINY"]


@seeded
def _kandinsky5() -> Kandinsky5I2VPipeline:
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 2, 2),
        visual_cond=True,
    )
    return Kandinsky5I2VPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )


@seeded
def _kandinsky6() -> Kandinsky6TI2VAPipeline:
    transformer = Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        model_dim=12,
        ff_dim=24,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(2, 1, 1),
        in_audio_dim=4,
        out_audio_dim=4,
        visual_token_type_num_embeddings=2,
    )
    audio_vae = MMAudioVAE(
        mel_bins=8,
        latent_channels=4,
        hidden_channels=8,
        channel_multipliers=(1, 2),
        layers_per_block=1,
        sample_rate=64,
        n_fft=16,
        hop_length=4,
    )
    vocoder = MMAudioVocoder(
        num_mels=8,
        upsample_initial_channel=8,
        upsample_rates=(2, 2),
        upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
    )
    return Kandinsky6TI2VAPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        audio_vae=audio_vae,
        vocoder=vocoder,
    )


def _call5(pipe: Any, **changes: Any) -> Tensor:
    """Five latent frames: the pipeline matches the statistics of the first four to those that follow."""
    arguments = {
        "image": photo(32, 16),
        "prompt_embeds_qwen": embeds(1, 4, 16),
        "prompt_embeds_clip": embeds(1, 8),
        "prompt_cu_seqlens": torch.tensor([0, 4], dtype=torch.int32),
        "negative_prompt_embeds_qwen": embeds(1, 4, 16, seed=2),
        "negative_prompt_embeds_clip": embeds(1, 8, seed=2),
        "negative_prompt_cu_seqlens": torch.tensor([0, 4], dtype=torch.int32),
        "height": 32,
        "width": 16,
        "num_frames": 17,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


def _call6(pipe: Any, **changes: Any) -> Tensor:
    arguments = {
        "image": photo(32, 16),
        "prompt_embeds": embeds(1, 4, 16),
        "pooled_prompt_embeds": embeds(1, 8),
        "negative_prompt_embeds": embeds(1, 4, 16, seed=2),
        "negative_pooled_prompt_embeds": embeds(1, 8, seed=2),
        "height": 32,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


TINY = [
    Tiny("kandinsky5", _kandinsky5, _call5),
    Tiny("kandinsky6", _kandinsky6, _call6),
]
