"""DynamiCrafter's checkpoints, the authors' and the paper's: which variant they are of, and its configuration."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unleak.families.lvdm.convert import PREFIXES
from unleak.families.lvdm.folder import Family
from unleak.families.lvdm.original import resampler_config
from unleak.families.lvdm.resampler import Resampler

__all__ = ["FAMILY", "VARIANTS", "VERSION"]

VERSION = 2
"""Counts the changes of what `convert` writes; see `unleak.zoo.conversion.Converter`."""

UNET: Mapping[str, Any] = {
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "dropout": 0.1,
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "use_linear": True,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "temporal_length": 16,
    "addition_attention": True,
    "image_cross_attention": True,
    "fs_condition": True,
}
FIRST_STAGE: Mapping[str, Any] = {
    "embed_dim": 4,
    "ddconfig": {
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
    },
}
RESAMPLER: Mapping[str, Any] = {
    "dim": 1024,
    "depth": 4,
    "dim_head": 64,
    "heads": 12,
    "num_queries": 16,
    "embedding_dim": 1280,
    "output_dim": 1024,
    "ff_mult": 4,
    "video_length": 16,
}


def _params(*, image_size: list[int], unet: Mapping[str, Any], **process: Any) -> dict[str, Any]:
    return {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": image_size,
        "scale_factor": 0.18215,
        "unet_config": {"params": {**UNET, **unet}},
        "first_stage_config": {"params": FIRST_STAGE},
        "cond_stage_config": {"params": {"layer": "penultimate"}},
        "img_cond_stage_config": {"params": {}},
        "image_proj_stage_config": {"params": RESAMPLER},
        **process,
    }


_V: Mapping[str, Any] = {"rescale_betas_zero_snr": True, "parameterization": "v", "use_dynamic_rescale": True}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "256": _params(
        image_size=[32, 32],
        unet={"default_fs": 3, "image_cross_attention_scale_learnable": True},
        condition_on="frame_stride",
    ),
    "512": _params(image_size=[40, 64], unet={"default_fs": 24}, base_scale=0.7, **_V),
    "1024": _params(image_size=[72, 128], unet={"default_fs": 10}, base_scale=0.3, **_V),
}
"""The published configurations, `inference_*_v1.0.yaml`. The interpolating model is a 512."""


def variant_of(state: Mapping[str, Tensor]) -> str:
    """256 has a learned weight of the image's attention; 512 and 1024 differ by the rescale that they keep."""
    if any(key.startswith(PREFIXES["unet"]) and key.endswith(".attn2.alpha") for key in state):
        return "256"
    if "scale_arr" not in state:
        raise ValueError("pruned, it does not say whether it is of 512 or 1024; give --variant 512 or --variant 1024")
    base_scale = round(state["scale_arr"][-1].item(), 3)
    for name, params in VARIANTS.items():
        if params.get("base_scale") == base_scale:
            return name
    raise ValueError(f"its latents are rescaled by {base_scale}, which no published variant does; give --config FILE")


def _image_projection(params: Mapping[str, Any]) -> nn.Module:
    return Resampler(**resampler_config(params["image_proj_stage_config"]["params"]))


def _pipeline() -> Any:
    from unleak.families.dynamicrafter.pipeline import DynamiCrafterPipeline

    return DynamiCrafterPipeline


FAMILY = Family("dynamicrafter", _pipeline, VARIANTS, variant_of, _image_projection)
