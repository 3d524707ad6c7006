"""Writes tiny random models that ComfyUI's own loaders recognise."""

import json
from pathlib import Path

import comfy.ldm.hunyuan_video.model
import comfy.ldm.lightricks.model
import comfy.ldm.lightricks.vae.causal_video_autoencoder
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.ops
import comfy.taesd.taesd
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


def ltx_vae(seed):
    """32 pixels a latent and 8 frames, as LTX; the metadata say how it is built."""
    halvings = [["compress_all", {}]] * 3
    config = {
        "dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128, "patch_size": 4,
        "encoder_blocks": [["res_x", {"num_layers": 1}], *halvings],
        "decoder_blocks": [*halvings, ["res_x", {"num_layers": 1}]],
        "norm_layer": "pixel_norm", "latent_log_var": "uniform", "timestep_conditioning": False,
    }  # fmt: skip
    model = comfy.ldm.lightricks.vae.causal_video_autoencoder.VideoVAE(config=config)
    weights = filled(model, seed)
    return weights | {"per_channel_statistics.std-of-means": torch.ones(128)}, config


def svd_unet(seed):
    """As small as ComfyUI takes for SVD, which it knows by its 320 channels: 140 M parameters, in half precision."""
    model = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel(
        image_size=32, in_channels=8, out_channels=4, model_channels=320, channel_mult=[1, 1, 1, 1],
        num_res_blocks=[2, 2, 2, 2], transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], transformer_depth_middle=1,
        num_head_channels=64, num_heads=-1, use_spatial_transformer=True, use_linear_in_transformer=True,
        context_dim=1024, num_classes="sequential", adm_in_channels=768, legacy=False, use_temporal_attention=True,
        use_temporal_resblock=True, extra_ff_mix_layer=True, use_spatial_context=True,
        merge_strategy="learned_with_images", merge_factor=0.0, video_kernel_size=[3, 1, 1],
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return {name: weight.half() for name, weight in filled(model, seed).items()}


def svd(seed):
    """A checkpoint without its image encoder, which cannot be small: its names tell how large it is."""
    vae = filled(comfy.taesd.taesd.TAESD(), seed + 1)
    vae |= {"vae_scale": torch.ones(()), "vae_shift": torch.zeros(())}
    return {f"model.diffusion_model.{name}": weight for name, weight in svd_unet(seed).items()} | {
        f"first_stage_model.{name}": weight for name, weight in vae.items()
    }


def ltx_checkpoint(seed):
    weights, metadata = ltx(seed)
    vae, config = ltx_vae(seed + 1)
    held = {f"model.diffusion_model.{name}": weight for name, weight in weights.items()}
    held |= {f"vae.{name}": weight for name, weight in vae.items()}
    return held, {"config": json.dumps(json.loads(metadata["config"]) | {"vae": config})}


def lora(seed):
    """One of rank 4 for a layer of the tiny Wan."""
    key = "diffusion_model.blocks.0.self_attn.q"
    generator = torch.Generator().manual_seed(seed)
    return {f"{key}.lora_{end}.weight": torch.randn(shape, generator=generator) for end, shape in
            (("A", (4, 128)), ("B", (128, 4)))}  # fmt: skip


NAMED = {
    "diffusion_models/wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": lambda: wan("t2v", 36, 2, text=4096),
    "diffusion_models/wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": lambda: wan("t2v", 36, 3, text=4096),
    "diffusion_models/hunyuan_video_image_to_video_720p_bf16.safetensors": lambda: hunyuan(33, 7),
    "loras/wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors": lambda: lora(10),
    "loras/wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors": lambda: lora(11),
    "vae/wan_2.1_vae.safetensors": lambda: wan_vae(9),
    "vae/hunyuan_video_vae_bf16.safetensors": lambda: wan_vae(9),  # it compresses alike, and Hunyuan's cannot be small
    "checkpoints/ltx-video-2b-v0.9.5.safetensors": lambda: ltx_checkpoint(6),
    "checkpoints/svd_xt.safetensors": lambda: svd(12),
}
"""Models under the names that the example workflows ask for."""


def write_named(folder, name):
    made = NAMED[name]()
    weights, metadata = made if isinstance(made, tuple) else (made, None)
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path, metadata)


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
