"""Helios, chunk after chunk with a memory, and its pyramid of sizes."""

from typing import Any

from diffusers import (
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import T5_DIM, umt5, words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


def _helios() -> dict[str, Any]:
    transformer = HeliosTransformer3DModel(
        in_channels=16,
        rope_dim=(4, 4, 4),
        has_multi_term_memory_patch=True,
        guidance_cross_attn=True,
        zero_history_timestep=True,
        is_amplify_history=False,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=T5_DIM,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
    )
    return {"tokenizer": words(), "text_encoder": umt5(), "vae": wan_vae(), "transformer": transformer}


def _settings(height: int, width: int) -> dict[str, Any]:
    # Reading a prompt needs ftfy.
    return {
        "prompt_embeds": embeds(1, 8, T5_DIM),
        "negative_prompt_embeds": embeds(1, 8, T5_DIM, seed=2),
        "height": height,
        "width": width,
        "generator": noise(),
        "output_type": "latent",
    }


@seeded
def _build_helios() -> HeliosPipeline:
    scheduler = HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True)
    return HeliosPipeline(**_helios(), scheduler=scheduler)


def _call_helios(pipe: Any, **changes: Any) -> Tensor:
    # Two chunks of two latent frames, five and then again five frames of the video.
    more = {
        "image": photo(32, 32),
        "num_frames": 10,
        "num_inference_steps": 4,
        "num_latent_frames_per_chunk": 2,
        "history_sizes": [4, 2, 1],
    }
    return pipe(**_settings(32, 32) | more | changes).frames


@seeded
def _build_pyramid() -> HeliosPyramidPipeline:
    return HeliosPyramidPipeline(**_helios(), scheduler=HeliosScheduler(use_dynamic_shifting=True))


@seeded
def _build_distilled() -> HeliosPyramidPipeline:
    scheduler = HeliosDMDScheduler(use_dynamic_shifting=True)
    return HeliosPyramidPipeline(**_helios(), scheduler=scheduler, is_distilled=True)


def _call_pyramid(pipe: Any, **changes: Any) -> Tensor:
    more = {
        "image": photo(64, 64),
        "num_frames": 5,
        "pyramid_num_inference_steps_list": [2, 2, 2],
        "num_latent_frames_per_chunk": 2,
        "history_sizes": [4, 2, 1],
        "guidance_scale": 1.0,
    }
    return pipe(**_settings(64, 64) | more | changes).frames


TINY = [
    Tiny("helios", _build_helios, _call_helios),
    Tiny("helios-pyramid", _build_pyramid, _call_pyramid),
    Tiny("helios-distilled", _build_distilled, _call_pyramid),
]
