"""Writes tiny random models that ComfyUI's own loaders recognise."""

import json
from pathlib import Path

import comfy.ldm.hunyuan_video.model
import comfy.ldm.lightricks.model
import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.ops
import torch
from safetensors.torch import save_file

TEXT = 32


def filled(module, seed):
    """The weights of a module, each drawn anew: ComfyUI's layers come uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in module.state_dict().items():
        draw = torch.randn(value.shape, generator=generator)
        scale = 0.5 / max(value[0].numel(), 1) ** 0.5 if value.ndim > 1 else 0.1
        weights[name] = draw * scale + (
            1.0 if value.ndim == 1 and name.endswith(("norm.weight", "gamma", "scale")) else 0.0
        )
    return weights


def wan(kind, channels, seed, out_channels=16, text=TEXT):
    model = comfy.ldm.wan.model.WanModel(
        model_type=kind, in_dim=channels, out_dim=out_channels, dim=128, ffn_dim=64, num_heads=1, num_layers=1,
        text_dim=text, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return filled(model, seed)


def ltx(seed):
    config = {"num_attention_heads": 2, "attention_head_dim": 32, "cross_attention_dim": 64, "caption_channels": TEXT}
    model = comfy.ldm.lightricks.model.LTXVModel(**config, num_layers=1, operations=comfy.ops.disable_weight_init)
    return filled(model, seed), {"config": json.dumps({"transformer": config})}


def hunyuan(channels, seed):
    model = comfy.ldm.hunyuan_video.model.HunyuanVideo(
        in_channels=channels, out_channels=16, vec_in_dim=768, context_in_dim=TEXT, hidden_size=128, mlp_ratio=4.0,
        num_heads=1, depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=256, patch_size=[1, 2, 2],
        qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False,
        vision_in_dim=None, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return filled(model, seed)


def wan_vae(seed):
    model = comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True])
    return filled(model, seed)


def write(folder):
    """Write them into ComfyUI's folder of models."""
    networks, out = Path(folder) / "diffusion_models", Path(folder)
    networks.mkdir(parents=True, exist_ok=True)
    (out / "vae").mkdir(exist_ok=True)
    # Wan's text width is not read off the weights.
    save_file(wan("i2v", 36, 1, text=4096), networks / "wan21.safetensors")
    save_file(wan("t2v", 36, 2, text=4096), networks / "wan22_high.safetensors")
    save_file(wan("t2v", 36, 3, text=4096), networks / "wan22_low.safetensors")
    save_file(wan("t2v", 48, 4, 48, text=4096), networks / "wan22_5b.safetensors")
    save_file(wan("t2v", 16, 5, text=4096), networks / "wan21_t2v.safetensors")
    weights, metadata = ltx(6)
    save_file(weights, networks / "ltxv.safetensors", metadata)
    save_file(hunyuan(33, 7), networks / "hunyuan.safetensors")
    save_file(hunyuan(16, 8), networks / "hunyuan_v2.safetensors")
    save_file(wan_vae(9), out / "vae" / "wan_vae.safetensors")
