"""Motif-Video, image to video."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, MotifVideoImage2VideoPipeline
from diffusers.guiders import AdaptiveProjectedGuidance
from diffusers.models.transformers.transformer_motif_video import MotifVideoTransformer3DModel
from torch import Tensor
from transformers import (
    SiglipImageProcessor,
    SiglipVisionConfig,
    T5Gemma2Encoder,
    T5Gemma2EncoderConfig,
    T5Gemma2TextConfig,
)

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


def _text_encoder() -> T5Gemma2Encoder:
    """Needed for its vision tower, which sees the image."""
    text = T5Gemma2TextConfig(
        vocab_size=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        dropout_rate=0.0,
    )
    vision = SiglipVisionConfig(
        hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=4
    )
    return T5Gemma2Encoder(T5Gemma2EncoderConfig(text_config=text, vision_config=vision))


@seeded
def _motif() -> MotifVideoImage2VideoPipeline:
    transformer = MotifVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        text_embed_dim=32,
        image_embed_dim=4,
        rope_axes_dim=(4, 4, 4),
    )
    return MotifVideoImage2VideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=wan_vae(),
        text_encoder=_text_encoder(),
        tokenizer=words(),
        transformer=transformer,
        guider=AdaptiveProjectedGuidance(),
        feature_extractor=SiglipImageProcessor(size={"height": 16, "width": 16}),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    arguments = {
        "image": photo(32, 16),
        "prompt": None,
        "prompt_embeds": embeds(1, 4, 32),
        "prompt_attention_mask": torch.ones(1, 4),
        "negative_prompt_embeds": embeds(1, 4, 32, seed=2),
        "negative_prompt_attention_mask": torch.ones(1, 4, dtype=torch.bool),
        "height": 32,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


TINY = [Tiny("motif", _motif, _call)]
