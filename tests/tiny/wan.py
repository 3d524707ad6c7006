"""Wan 2.1, 2.2, 2.2 5B, VACE, Animate, and Lucy Edit, which is a Wan 2.2 5B that sees a video."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    LucyEditPipeline,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY", "small_call"]


def _scheduler(*, flow_shift: float) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)


def _vae_5b() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=3,
        decoder_base_dim=3,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=torch.linspace(-0.5, 0.5, 48).tolist(),
        latents_std=torch.linspace(0.4, 0.9, 48).tolist(),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def _transformer(cls: Any = WanTransformer3DModel, *, in_channels: int, out_channels: int = 16, **config: Any) -> Any:
    return cls(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=32,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **config,
    )


def _clip() -> dict[str, Any]:
    config = CLIPVisionConfig(
        hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=4, patch_size=2
    )
    processor = CLIPImageProcessor(crop_size={"height": 4, "width": 4}, size={"shortest_edge": 4})
    return {"image_encoder": CLIPVisionModel(config), "image_processor": processor}


@seeded
def _wan21() -> WanImageToVideoPipeline:
    return WanImageToVideoPipeline(
        None,
        None,
        wan_vae(),
        _scheduler(flow_shift=3.0),
        transformer=_transformer(in_channels=36, image_dim=4, added_kv_proj_dim=24),
        **_clip(),
    )


@seeded
def _wan22() -> WanImageToVideoPipeline:
    return WanImageToVideoPipeline(
        None,
        None,
        wan_vae(),
        _scheduler(flow_shift=3.0),
        transformer=_transformer(in_channels=36),
        transformer_2=_transformer(in_channels=36),
        boundary_ratio=0.9,
    )


@seeded
def _wan22_5b() -> WanImageToVideoPipeline:
    return WanImageToVideoPipeline(
        None,
        None,
        _vae_5b(),
        _scheduler(flow_shift=5.0),
        transformer=_transformer(in_channels=48, out_channels=48),
        expand_timesteps=True,
    )


@seeded
def _vace() -> WanVACEPipeline:
    transformer = _transformer(WanVACETransformer3DModel, in_channels=16, vace_layers=[0, 1], vace_in_channels=96)
    return WanVACEPipeline(None, None, wan_vae(), _scheduler(flow_shift=3.0), transformer)


@seeded
def _animate() -> WanAnimatePipeline:
    transformer = _transformer(
        WanAnimateTransformer3DModel,
        in_channels=36,
        image_dim=4,
        added_kv_proj_dim=24,
        motion_encoder_channel_sizes={"4": 4, "8": 4, "16": 4},
        motion_encoder_size=16,
        motion_style_dim=4,
        motion_dim=2,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )
    clip = _clip()
    return WanAnimatePipeline(
        None, None, wan_vae(), _scheduler(flow_shift=3.0), clip["image_processor"], clip["image_encoder"], transformer
    )


@seeded
def _lucy() -> LucyEditPipeline:
    transformer = _transformer(in_channels=96, out_channels=48)
    return LucyEditPipeline(None, None, _vae_5b(), _scheduler(flow_shift=5.0), transformer, expand_timesteps=True)


def small_call() -> dict[str, Any]:
    """The arguments of a small call of Wan and its kin, but for the image and the kind of output."""
    return {
        "prompt_embeds": embeds(1, 4, 32),
        "negative_prompt_embeds": embeds(1, 4, 32, seed=2),
        "height": 32,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
    }


def _call(pipe: Any, **inputs: Any) -> Tensor:
    return pipe(**small_call() | {"output_type": "latent"} | inputs).frames


def _call_image(pipe: Any, **changes: Any) -> Tensor:
    return _call(pipe, **{"image": photo(32, 16)} | changes)


def _call_image_5b(pipe: Any, **changes: Any) -> Tensor:
    return _call(pipe, **{"image": photo(64, 32), "height": 64, "width": 32} | changes)


def _call_vace(pipe: Any, **changes: Any) -> Tensor:
    """First frame given, the rest to be made, and a reference image."""
    frames = [photo(32, 16), *[photo(32, 16, seed=6)] * 8]
    mask = [Image.new("L", (16, 32), value) for value in [0, *[255] * 8]]
    return _call(pipe, **{"video": frames, "mask": mask, "reference_images": [photo(32, 16, seed=7)]} | changes)


def _call_animate(pipe: Any, **changes: Any) -> Tensor:
    """Frames: of latents the pipeline returns the last segment's only, and those not normalised."""
    inputs = {
        "image": photo(32, 16),
        "pose_video": [photo(32, 16, seed=seed) for seed in range(9)],
        "face_video": [photo(16, 16, seed=seed) for seed in range(9)],
        "prompt_embeds": embeds(1, 4, 32),
        "height": 32,
        "width": 16,
        "segment_frame_length": 9,
        "num_inference_steps": 3,
        "generator": noise(),
        "output_type": "pt",
    }
    return pipe(**inputs | changes).frames


def _call_lucy(pipe: Any, **changes: Any) -> Tensor:
    return _call(pipe, **{"video": [photo(64, 32, seed=i) for i in range(9)], "height": 64, "width": 32} | changes)


TINY = [
    Tiny("wan21", _wan21, _call_image),
    Tiny("wan22", _wan22, _call_image),
    Tiny("wan22-5b", _wan22_5b, _call_image_5b),
    Tiny("wan-vace", _vace, _call_vace),
    Tiny("wan-animate", _animate, _call_animate),
    Tiny("lucy-edit", _lucy, _call_lucy),
]
