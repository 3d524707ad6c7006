"""CogVideoX image-to-video, 1.0 and 1.5 with either scheduler, and its children Fun-Control and ConsisID."""

from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXFunControlPipeline,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
    ConsisIDPipeline,
    ConsisIDTransformer3DModel,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import T5_DIM, t5, words

__all__ = ["TINY"]

# As released with the 2B model, whose snr_shift_scale is 3; the 5B models have 1.
SCHEDULE = {
    "snr_shift_scale": 1.0,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
}
TRANSFORMER = {
    "num_attention_heads": 1,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 2,
    "text_embed_dim": T5_DIM,
    "num_layers": 1,
    "sample_width": 2,
    "sample_height": 4,
    "sample_frames": 9,
    "patch_size": 2,
    "max_text_seq_length": 8,
    "use_rotary_positional_embeddings": True,
}


def _vae(**config: Any) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
        **config,
    )


@seeded
def _build(scheduler: type, *, version: str) -> CogVideoXImageToVideoPipeline:
    if version == "1.5":
        transformer = CogVideoXTransformer3DModel(**TRANSFORMER, patch_size_t=2, patch_bias=False, ofs_embed_dim=2)
    else:
        transformer = CogVideoXTransformer3DModel(**TRANSFORMER, use_learned_positional_embeddings=True)
    return CogVideoXImageToVideoPipeline(
        tokenizer=words(),
        text_encoder=t5(),
        vae=_vae(invert_scale_latents=version == "1.5"),
        transformer=transformer,
        scheduler=scheduler(**SCHEDULE),
    )


@seeded
def _build_control() -> CogVideoXFunControlPipeline:
    return CogVideoXFunControlPipeline(
        tokenizer=words(),
        text_encoder=t5(),
        vae=_vae(),
        transformer=CogVideoXTransformer3DModel(**TRANSFORMER),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULE),
    )


@seeded
def _build_consisid() -> ConsisIDPipeline:
    transformer = ConsisIDTransformer3DModel(
        **TRANSFORMER,
        use_learned_positional_embeddings=True,
        cross_attn_interval=1,
        is_train_face=True,
        cross_attn_dim_head=1,
        cross_attn_num_heads=1,
        LFE_id_dim=2,
        LFE_vit_dim=2,
        LFE_depth=5,
        LFE_dim_head=8,
        LFE_num_heads=2,
        LFE_num_id_token=1,
        LFE_num_querie=1,
        LFE_output_dim=10,  # two thirds of the width
        LFE_ff_mult=1,
        LFE_num_scale=1,
    )
    return ConsisIDPipeline(
        tokenizer=words(),
        text_encoder=t5(),
        vae=_vae(),
        transformer=transformer,
        scheduler=CogVideoXDPMScheduler(**SCHEDULE),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(32, 16),
        "prompt": "a dog runs",
        "height": 32,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 4,
        "max_sequence_length": 8,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _call_control(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "control_video": [photo(32, 16, seed=seed) for seed in range(9)],
        "height": 32,
        "width": 16,
        "num_inference_steps": 4,
        "max_sequence_length": 8,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _call_consisid(pipe: Any, **changes: Any) -> Tensor:
    face = {"id_vit_hidden": [embeds(1, 2, 2)], "id_cond": torch.ones(1, 2)}
    return _call(pipe, **face | changes)


def _pair() -> dict[str, Any]:
    return {"image": [photo(32, 16), photo(32, 16, seed=6)], "prompt": ["a dog runs", "a dog"]}


TINY = [
    Tiny("cogvideox-ddim", partial(_build, CogVideoXDDIMScheduler, version="1.0"), _call, pair=_pair),
    Tiny("cogvideox-dpm", partial(_build, CogVideoXDPMScheduler, version="1.0"), _call, pair=_pair),
    Tiny("cogvideox1.5-ddim", partial(_build, CogVideoXDDIMScheduler, version="1.5"), _call, pair=_pair),
    Tiny("cogvideox1.5-dpm", partial(_build, CogVideoXDPMScheduler, version="1.5"), _call, pair=_pair),
    Tiny("cogvideox-control", _build_control, _call_control),
    Tiny("consisid", _build_consisid, _call_consisid, pair=_pair),
]
