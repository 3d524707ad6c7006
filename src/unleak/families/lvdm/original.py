"""What the original configurations mean: from their keys to those of our components. Pure functions of dictionaries.

Their form is that of `model.params` in the YAML files that are published with DynamiCrafter and VideoCrafter1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "OPENCLIP",
    "image_encoder_config",
    "linear_projection_config",
    "resampler_config",
    "scheduler_config",
    "text_encoder_config",
    "unet_config",
    "vae_config",
]

Config = Mapping[str, Any]

_UNET = {
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "model_channels": "model_channels",
    "channel_mult": "channel_mult",
    "num_res_blocks": "num_res_blocks",
    "attention_resolutions": "attention_resolutions",
    "num_head_channels": "attention_head_dim",
    "transformer_depth": "transformer_depth",
    "context_dim": "cross_attention_dim",
    "image_cross_attention": "image_cross_attention",  # DynamiCrafter
    "use_image_attention": "image_cross_attention",  # VideoCrafter1
    "image_cross_attention_scale_learnable": "learnable_image_scale",
    "temporal_conv": "temporal_conv",
    "temporal_attention": "temporal_attention",
    "addition_attention": "first_temporal_attention",
    "fs_condition": "fps_condition",  # DynamiCrafter
    "fps_cond": "fps_condition",  # VideoCrafter1
    "default_fs": "default_fps",
    "temporal_length": "temporal_length",
    "dropout": "dropout",
}
_UNET_DEFAULTS: Config = {
    "dropout": 0.0,
    "transformer_depth": 1,
    "image_cross_attention": False,
    "learnable_image_scale": False,
    "temporal_conv": False,
    "temporal_attention": True,
    "first_temporal_attention": False,
    "fps_condition": False,
}
# No published checkpoint has another value; one that had would be another network.
_UNET_FIXED: Config = {
    "use_relative_position": False,
    "use_causal_attention": False,
    "temporal_selfatt_only": True,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "conv_resample": True,
    "tempspatial_aware": False,
    "num_heads": -1,
    "dims": 2,
}
_UNET_FREE = ("use_linear", "use_checkpoint", "use_fp16", "image_size")
"""Of no consequence here: 1x1 convolutions are linear layers, and the rest is how to run the network."""

_VIDEOCRAFTER_FPS = 16

OPENCLIP: Mapping[str, Config] = {
    "ViT-H-14": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    }
}
"""Architectures by their names in OpenCLIP, in its own form."""


def unet_config(params: Config) -> dict[str, Any]:
    """Configuration of `LVDMUNet` from that of the original `UNetModel`, DynamiCrafter's or VideoCrafter1's.

    Raises ValueError for what none of their checkpoints has: relative positions, causal attention, keys unknown.
    """
    for key, value in _UNET_FIXED.items():
        # An option that is on by default is off in every checkpoint, so it must be there to say so.
        if params.get(key, True if key == "use_relative_position" else value) != value:
            raise ValueError(f"unet {key}: {params.get(key, 'not given')}; unleak's UNet has {value} only")
    known = {*_UNET, *_UNET_FIXED, *_UNET_FREE, "temporal_transformer_depth"}
    if unknown := sorted(params.keys() - known):
        raise ValueError(f"unet: {', '.join(unknown)} unknown; known are {', '.join(sorted(known))}")
    config = {**_UNET_DEFAULTS, **{_UNET[key]: _plain(value) for key, value in params.items() if key in _UNET}}
    videocrafter = "use_image_attention" in params or "fps_cond" in params
    if videocrafter:
        config |= {"default_fps": _VIDEOCRAFTER_FPS, "image_tokens_per_frame": False}
        config["temporal_transformer_depth"] = params.get("temporal_transformer_depth", 1)
    else:
        config["default_fps"] = params.get("default_fs", 4)
        config["temporal_transformer_depth"] = config["transformer_depth"]
    return config


def resampler_config(params: Config) -> dict[str, Any]:
    """Configuration of `Resampler` from that of the original."""
    names = {"dim_head": "head_dim"}
    return {names.get(key, key): value for key, value in params.items()}


def linear_projection_config(params: Config) -> dict[str, Any]:
    """Configuration of `LinearProjection` from that of the original `ImageProjModel`."""
    names = {
        "cross_attention_dim": "output_dim",
        "clip_embeddings_dim": "embedding_dim",
        "clip_extra_context_tokens": "num_tokens",
    }
    return {names[key]: value for key, value in params.items()}


def vae_config(first_stage: Config, *, scaling_factor: float) -> dict[str, Any]:
    """Configuration of diffusers' `AutoencoderKL` from that of the original first stage (`embed_dim`, `ddconfig`)."""
    dd = first_stage["ddconfig"]
    levels = len(dd["ch_mult"])
    if dd.get("attn_resolutions"):
        raise ValueError(f"first stage attn_resolutions: {dd['attn_resolutions']}; AutoencoderKL has none")
    return {
        "in_channels": dd["in_channels"],
        "out_channels": dd["out_ch"],
        "latent_channels": first_stage["embed_dim"],
        "block_out_channels": [dd["ch"] * multiple for multiple in dd["ch_mult"]],
        "layers_per_block": dd["num_res_blocks"],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": dd["resolution"],
        "scaling_factor": scaling_factor,
        "force_upcast": False,  # this autoencoder, of Stable Diffusion 1, does not overflow in float16
    }


def text_encoder_config(arch: str | Config) -> dict[str, Any]:
    """Configuration of transformers' `CLIPTextModel` that gives what the original reads: the last layer but one,
    normalised. So it has a layer less than the checkpoint."""
    model = _openclip(arch)
    text = model["text_cfg"]
    return {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["width"],
        "intermediate_size": 4 * text["width"],
        "num_hidden_layers": text["layers"] - 1,
        "num_attention_heads": text["heads"],
        "max_position_embeddings": text["context_length"],
        "projection_dim": model["embed_dim"],
        "hidden_act": "gelu",
        "bos_token_id": text["vocab_size"] - 2,
        "eos_token_id": text["vocab_size"] - 1,
        "pad_token_id": 0,
    }


def image_encoder_config(arch: str | Config) -> dict[str, Any]:
    """Configuration of transformers' `CLIPVisionModelWithProjection`."""
    model = _openclip(arch)
    vision = model["vision_cfg"]
    return {
        "hidden_size": vision["width"],
        "intermediate_size": 4 * vision["width"],
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": vision["width"] // vision["head_width"],
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "projection_dim": model["embed_dim"],
        "hidden_act": "gelu",
    }


def scheduler_config(params: Config) -> dict[str, Any]:
    """Configuration of `LVDMScheduler`: the process, the dynamic rescale and the spacing that goes with them."""
    zero_snr = bool(params.get("rescale_betas_zero_snr", False))
    config = {
        "num_train_timesteps": params.get("timesteps", 1000),
        "beta_start": params["linear_start"],
        "beta_end": params["linear_end"],
        "prediction_type": {"v": "v_prediction", "eps": "epsilon"}[params.get("parameterization", "eps")],
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "uniform_trailing" if zero_snr else "uniform",
        "base_scale": None,
    }
    if params.get("use_dynamic_rescale"):  # DynamiCrafter
        config |= {"base_scale": params.get("base_scale", 0.7), "turning_step": params.get("turning_step", 400)}
    elif params.get("use_scale"):  # VideoCrafter1
        config |= {"base_scale": params.get("scale_b", 0.3), "turning_step": params.get("mid_step", 400)}
        config["set_scale_to_one"] = True
    return config


def _openclip(arch: str | Config) -> Config:
    if not isinstance(arch, str):
        return arch
    if arch not in OPENCLIP:
        raise ValueError(f"OpenCLIP architecture {arch} is unknown: give one of {', '.join(OPENCLIP)}")
    return OPENCLIP[arch]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
