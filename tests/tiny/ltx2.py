"""LTX-2: video and audio from an image, from conditions anywhere in time, in context, and dynamic frame rate."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2DFRPipeline,
    LTX2ImageToVideoPipeline,
    LTX2InContextPipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded

__all__ = ["TINY"]


def _vae() -> AutoencoderKLLTX2Video:
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=8,
        decoder_causal=False,
    )
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 4))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, 4))
    return vae


def _audio() -> dict[str, Any]:
    vae = AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1,), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
    )
    vocoder = LTX2Vocoder(
        in_channels=2 * 8,
        hidden_channels=8,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return {"audio_vae": vae, "vocoder": vocoder}


def _transformer(**config: Any) -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        vae_scale_factors=(2, 16, 16),
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=16,
        rope_double_precision=False,
        rope_type="split",
        **config,
    )


def _connectors() -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
    )


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def _assemble(cls: Any, scheduler: FlowMatchEulerDiscreteScheduler, transformer: LTX2VideoTransformer3DModel) -> Any:
    return cls(
        scheduler=scheduler,
        vae=_vae(),
        text_encoder=None,
        tokenizer=None,
        connectors=_connectors(),
        transformer=transformer,
        **_audio(),
    )


@seeded
def _pipeline(cls: Any) -> Any:
    return _assemble(cls, _scheduler(), _transformer())


@seeded
def _dynamic_frame_rate() -> LTX2DFRPipeline:
    """The distilled model, which brings its sigmas with every call, hence a scheduler without a shift."""
    transformer = _transformer(use_keyframes_abs_pos_embedding=True)
    torch.nn.init.normal_(transformer.keyframes_abs_pos_embedding, std=0.1)  # zero at birth
    return _assemble(LTX2DFRPipeline, FlowMatchEulerDiscreteScheduler(), transformer)


def _call(pipe: Any, **inputs: Any) -> Tensor:
    arguments = {
        "prompt_embeds": embeds(1, 4, 32),
        "prompt_attention_mask": torch.ones(1, 4),
        "height": 64,
        "width": 32,
        "num_frames": 5,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**arguments | inputs).frames


def _guided(pipe: Any, **inputs: Any) -> Tensor:
    arguments = {
        "negative_prompt_embeds": embeds(1, 4, 32, seed=2),
        "negative_prompt_attention_mask": torch.ones(1, 4),
        "spatio_temporal_guidance_blocks": [1],
        "num_inference_steps": 3,
    }
    return _call(pipe, **arguments | inputs)


def _call_image(pipe: Any, **changes: Any) -> Tensor:
    return _guided(pipe, **{"image": photo(64, 32), "image_crf": 0} | changes)


def _call_condition(pipe: Any, **changes: Any) -> Tensor:
    return _guided(pipe, **{"conditions": LTX2VideoCondition(frames=photo(64, 32), crf=0)} | changes)


def _call_in_context(pipe: Any, **changes: Any) -> Tensor:
    """With a reference video, whose tokens follow those of the video in the latents."""
    reference = LTX2ReferenceCondition(frames=[photo(64, 32, seed=seed) for seed in range(5)])
    return _call_condition(pipe, **{"reference_conditions": reference} | changes)


def _call_dfr(pipe: Any, **changes: Any) -> Tensor:
    return _call(pipe, **{"conditions": LTX2VideoCondition(frames=photo(64, 32), crf=0), "num_frames": 9} | changes)


TINY = [
    Tiny("ltx2", lambda: _pipeline(LTX2ImageToVideoPipeline), _call_image),
    Tiny("ltx2-condition", lambda: _pipeline(LTX2ConditionPipeline), _call_condition),
    Tiny("ltx2-in-context", lambda: _pipeline(LTX2InContextPipeline), _call_in_context),
    Tiny("ltx2-dfr", _dynamic_frame_rate, _call_dfr),
]
