"""The family of Stable Diffusion 1.5 and its neighbours: PIA, AnimateDiff with either ControlNet, I2VGen-XL."""

from typing import Any

import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AnimateDiffPipeline,
    AnimateDiffSparseControlNetPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    I2VGenXLPipeline,
    MotionAdapter,
    PIAPipeline,
    SparseControlNetModel,
    UNet2DConditionModel,
)
from diffusers.models.unets import I2VGenXLUNet
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny.model import Tiny, noise, photo, seeded
from tests.tiny.text import CLIP_DIM, clip, words

__all__ = ["TINY"]

WIDTHS = (4, 8)
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=CLIP_DIM,
        norm_num_groups=2,
    )


def _adapter(**config: Any) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
        **config,
    )


@seeded
def _build_pia() -> PIAPipeline:
    # The documentation asks for the linear schedule of betas.
    return PIAPipeline(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=words(),
        unet=_unet(),
        scheduler=DDIMScheduler(beta_schedule="linear", **SD15),
        motion_adapter=_adapter(conv_in_channels=9),
    )


def _call_pia(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(16, 24),
        "prompt": "a dog runs",
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


@seeded
def _build_animatediff() -> AnimateDiffPipeline:
    return AnimateDiffPipeline(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=words(),
        unet=_unet(),
        motion_adapter=_adapter(),
        scheduler=DDIMScheduler(beta_schedule="linear", **SD15),
    )


def _call_animatediff(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


@seeded
def _build_sparsectrl() -> AnimateDiffSparseControlNetPipeline:
    controlnet = SparseControlNetModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        attention_head_dim=2,
        cross_attention_dim=CLIP_DIM,
        norm_num_groups=2,
        motion_num_attention_heads=2,
        conditioning_channels=3,
        conditioning_embedding_out_channels=WIDTHS,
        use_simplified_condition_embedding=False,
    )
    # As in the documentation's example.
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        steps_offset=1,
        algorithm_type="dpmsolver++",
        use_karras_sigmas=True,
    )
    return AnimateDiffSparseControlNetPipeline(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=words(),
        unet=_unet(),
        motion_adapter=_adapter(),
        controlnet=controlnet,
        scheduler=scheduler,
    )


def _call_sparsectrl(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "conditioning_frames": [photo(16, 24)],
        "controlnet_frame_indices": [0],
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


@seeded
def _build_control() -> AnimateDiffControlNetPipeline:
    controlnet = ControlNetModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=CLIP_DIM,
        norm_num_groups=2,
        conditioning_embedding_out_channels=WIDTHS,
    )
    return AnimateDiffControlNetPipeline(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=words(),
        unet=_unet(),
        motion_adapter=_adapter(),
        controlnet=controlnet,
        scheduler=DDIMScheduler(beta_schedule="linear", **SD15),
    )


def _call_control(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "conditioning_frames": [photo(16, 24, seed=seed) for seed in range(3)],
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


@seeded
def _build_i2vgen() -> I2VGenXLPipeline:
    unet = I2VGenXLUNet(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=CLIP_DIM,
        attention_head_dim=4,
        num_attention_heads=None,
        norm_num_groups=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=8,
        projection_dim=CLIP_DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        intermediate_size=16,
        patch_size=8,
    )
    # As released.
    scheduler = DDIMScheduler(
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="leading",
    )
    return I2VGenXLPipeline(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=words(),
        image_encoder=CLIPVisionModelWithProjection(vision),
        feature_extractor=CLIPImageProcessor(crop_size=16, size=16),
        unet=unet,
        scheduler=scheduler,
    )


def _call_i2vgen(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "clip_skip": None,  # its default looks for what transformers 5 no longer has
        "image": photo(16, 24),
        "height": 16,
        "width": 24,
        "num_frames": 3,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    with torch.random.fork_rng():
        # The pipeline samples the image's latents from the global generator.
        torch.manual_seed(0)
        return pipe(**settings | changes).frames


def _pair() -> dict[str, Any]:
    return {"image": [photo(16, 24), photo(16, 24, seed=6)], "prompt": ["a dog runs", "a dog"]}


TINY = [
    Tiny("pia", _build_pia, _call_pia, denoiser="unet", pair=_pair),
    Tiny(
        "sparsectrl",
        _build_sparsectrl,
        _call_sparsectrl,
        denoiser="unet",
        pair=lambda: {"prompt": ["a dog runs", "a dog"]},
    ),
    Tiny("animatediff", _build_animatediff, _call_animatediff, denoiser="unet"),
    Tiny("animatediff-control", _build_control, _call_control, denoiser="unet"),
    Tiny("i2vgen-xl", _build_i2vgen, _call_i2vgen, denoiser="unet", pair=_pair),
]
