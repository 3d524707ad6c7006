"""VideoCrafter1's image-to-video checkpoints, the authors' and the paper's."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unleak.families.lvdm.folder import Family
from unleak.families.lvdm.original import linear_projection_config, resampler_config
from unleak.families.lvdm.resampler import Resampler
from unleak.families.videocrafter1.projection import LinearProjection

__all__ = ["FAMILY", "VARIANTS", "VERSION"]

VERSION = 2
"""Counts the changes of what `convert` writes; see `unleak.zoo.conversion.Converter`."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "512": {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": [40, 64],
        "scale_factor": 0.18215,
        "use_scale": True,
        "scale_b": 0.7,
        "finegrained": True,
        "unet_config": {
            "params": {
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 320,
                "attention_resolutions": [4, 2, 1],
                "num_res_blocks": 2,
                "channel_mult": [1, 2, 4, 4],
                "num_head_channels": 64,
                "transformer_depth": 1,
                "context_dim": 1024,
                "use_linear": True,
                "temporal_conv": True,
                "temporal_attention": True,
                "temporal_selfatt_only": True,
                "use_relative_position": False,
                "use_causal_attention": False,
                "use_image_attention": True,
                "temporal_length": 16,
                "addition_attention": True,
                "fps_cond": True,
            }
        },
        "first_stage_config": {
            "params": {
                "embed_dim": 4,
                "ddconfig": {
                    "resolution": 512,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 128,
                    "ch_mult": [1, 2, 4, 4],
                    "num_res_blocks": 2,
                },
            }
        },
        "cond_stage_config": {"params": {"layer": "penultimate"}},
        "cond_img_config": {"params": {}},
    }
}
"""The published configuration, `inference_i2v_512_v1.0.yaml`."""

# Constants of the original code, which its configuration does not name.
RESAMPLER: Mapping[str, Any] = {
    "dim": 1024,
    "depth": 4,
    "dim_head": 64,
    "heads": 12,
    "num_queries": 16,
    "embedding_dim": 1280,
    "output_dim": 1024,
    "ff_mult": 4,
}
LINEAR: Mapping[str, Any] = {
    "cross_attention_dim": 1024,
    "clip_embeddings_dim": 1024,
    "clip_extra_context_tokens": 4,
}


def variant_of(state: Mapping[str, Tensor]) -> str:
    """There is one."""
    del state
    return "512"


def _image_projection(params: Mapping[str, Any]) -> nn.Module:
    given = params.get("image_proj_stage_config", {}).get("params")
    if params.get("finegrained"):
        return Resampler(**resampler_config(given or RESAMPLER))
    return LinearProjection(**linear_projection_config(given or LINEAR))


def _pipeline() -> Any:
    from unleak.families.videocrafter1.pipeline import VideoCrafter1Pipeline

    return VideoCrafter1Pipeline


FAMILY = Family("videocrafter1", _pipeline, VARIANTS, variant_of, _image_projection)
