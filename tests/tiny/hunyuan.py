"""HunyuanVideo (both image conditions), its SkyReels and FramePack children, and HunyuanVideo 1.5."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from torch import Tensor
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tests.tiny.hunyuan_vae import hunyuan_vae
from tests.tiny.model import Tiny, embeds, noise, photo, seeded

__all__ = ["TINY"]


def _transformer(cls: Any = HunyuanVideoTransformer3DModel, *, in_channels: int, **config: Any) -> Any:
    return cls(
        in_channels=in_channels,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        **config,
    )


def _siglip() -> dict[str, Any]:
    config = SiglipVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    processor = SiglipImageProcessor(size={"height": 8, "width": 8})
    return {"image_encoder": SiglipVisionModel(config), "feature_extractor": processor}


@seeded
def _image_to_video(condition: str) -> HunyuanVideoImageToVideoPipeline:
    concat = condition == "latent_concat"
    transformer = _transformer(
        in_channels=2 * 4 + 1 if concat else 4, guidance_embeds=not concat, image_condition_type=condition
    )
    return HunyuanVideoImageToVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=None,
        tokenizer_2=None,
        image_processor=None,
    )


@seeded
def _skyreels() -> HunyuanSkyreelsImageToVideoPipeline:
    return HunyuanSkyreelsImageToVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=_transformer(in_channels=2 * 4),
        vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=None,
        tokenizer_2=None,
    )


@seeded
def _framepack() -> HunyuanVideoFramepackPipeline:
    transformer = _transformer(
        HunyuanVideoFramepackTransformer3DModel,
        in_channels=4,
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return HunyuanVideoFramepackPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=None,
        tokenizer_2=None,
        **_siglip(),
    )


@seeded
def _hunyuan15() -> HunyuanVideo15ImageToVideoPipeline:
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * 4 + 1,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=8,
        image_embed_dim=8,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    return HunyuanVideo15ImageToVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=None,
        tokenizer_2=None,
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
        **_siglip(),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    arguments = {
        "image": photo(32, 16),
        "prompt_embeds": embeds(1, 4, 16),
        "pooled_prompt_embeds": embeds(1, 8),
        "prompt_attention_mask": torch.ones(1, 4),
        "negative_prompt_embeds": embeds(1, 4, 16, seed=2),
        "negative_pooled_prompt_embeds": embeds(1, 8, seed=2),
        "negative_prompt_attention_mask": torch.ones(1, 4),
        "true_cfg_scale": 2.0,
        "height": 32,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


def _call_framepack(pipe: Any, **changes: Any) -> Tensor:
    """Two sections of three latent frames; the pipeline returns what it has after each."""
    return _call(pipe, **{"num_frames": 18, "latent_window_size": 3} | changes)[-1]


def _call15(pipe: Any, **changes: Any) -> Tensor:
    arguments = {
        "image": photo(32, 16),
        "prompt_embeds": embeds(1, 4, 16),
        "prompt_embeds_mask": torch.ones(1, 4),
        "prompt_embeds_2": embeds(1, 4, 8),
        "prompt_embeds_mask_2": torch.ones(1, 4),
        "negative_prompt_embeds": embeds(1, 4, 16, seed=2),
        "negative_prompt_embeds_mask": torch.ones(1, 4),
        "negative_prompt_embeds_2": embeds(1, 4, 8, seed=2),
        "negative_prompt_embeds_mask_2": torch.ones(1, 4),
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | changes).frames


TINY = [
    Tiny("hunyuan-concat", lambda: _image_to_video("latent_concat"), _call),
    Tiny("hunyuan-replace", lambda: _image_to_video("token_replace"), _call),
    Tiny("hunyuan-skyreels", _skyreels, _call),
    Tiny("framepack", _framepack, _call_framepack),
    Tiny("hunyuan15", _hunyuan15, _call15),
]
