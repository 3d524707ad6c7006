"""Loads nano, the model that comes with unleak, into ComfyUI's own classes.

nano is a small model of the kind of Stable Video Diffusion, in the layout of diffusers. ComfyUI recognises SVD by its
width, so it cannot recognise nano: its classes are built here from nano's configuration files, and filled with its
weights under ComfyUI's names. Nothing depends on the width, depth or latent channels that nano has.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

__all__ = [
    "latent_shape",
    "load_nano",
    "read_config",
    "unet_config",
    "unet_weights",
    "vae_config",
    "vae_weights",
    "video_size",
    "weights_folder",
]

Config = Mapping[str, Any]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def weights_folder() -> Path:
    """Return the folder of nano's weights: inside the pack, or inside the installed package."""
    package = Path(__file__).parents[1]
    inside = package / "nano"
    return inside if inside.is_dir() else package / "families" / "nano" / "weights"


def load_nano() -> tuple[Any, Any, Any]:
    """Return nano as ComfyUI's MODEL, CLIP_VISION and VAE."""
    folder = weights_folder()
    return _unet(folder, read_config(folder / "vae")), _clip_vision(folder / "image_encoder"), _vae(folder / "vae")


def latent_shape(folder: Path) -> tuple[int, int, int, int]:
    """Return [frames, channels, height, width] of the latents that the nano in `folder` was trained on."""
    config = read_config(folder / "unet")
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return config["num_frames"], config["out_channels"], height, width


def video_size(folder: Path) -> tuple[int, int, int]:
    """Return the width and height in pixels and the number of frames of the videos it was trained on."""
    num_frames, _, height, width = latent_shape(folder)
    factor = _downscaling(read_config(folder / "vae"))
    return width * factor, height * factor, num_frames


def _downscaling(vae: Config) -> int:
    """Return how many pixels a latent is wide."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration in a folder of one of nano's parts."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Read every weight in a folder, in float32."""
    (file,) = folder.glob("*.safetensors")
    return {name: tensor.float() for name, tensor in load_file(file).items()}


def _unet(folder: Path, vae: Config) -> Any:
    import comfy.latent_formats
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = read_config(folder / "unet")
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))

    class NanoLatents(comfy.latent_formats.LatentFormat):
        scale_factor = float(vae.get("scaling_factor", 1.0))
        latent_channels = int(config["out_channels"])

    class NanoConfig(comfy.supported_models.SVD_img2vid):
        latent_format = NanoLatents
        unet_extra_config: dict[str, Any] = {}  # noqa: RUF012  # ComfyUI reads it off the class
        sampling_settings = {key: scheduler[key] for key in ("sigma_min", "sigma_max")}  # noqa: RUF012

    described = NanoConfig(unet_config(config) | {"attn_precision": torch.float32})
    described.set_inference_dtype(torch.float32, None)
    device = comfy.model_management.unet_offload_device()
    model = described.get_model({}, device=device)
    model.embedder = openaimodel.Timestep(config["addition_time_embed_dim"])
    _fill(model.diffusion_model, unet_weights(_tensors(folder / "unet"), config))
    load_device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=device)


def _vae(folder: Path) -> Any:
    import comfy.sd
    from comfy.ldm.modules.temporal_ae import VideoDecoder

    config = read_config(folder)
    described = vae_config(config)
    weights = vae_weights(_tensors(folder), config)
    params = {"ddconfig": described, "embed_dim": config["latent_channels"]}
    vae = comfy.sd.VAE(sd=dict(weights), config={"params": params}, dtype=torch.float32)
    # That is an autoencoder of images; the decoder of videos takes its place.
    decoder = VideoDecoder(**described, video_kernel_size=[3, 1, 1], alpha=0.0).eval()
    _fill(decoder, {name.removeprefix("decoder."): w for name, w in weights.items() if name.startswith("decoder.")})
    vae.first_stage_model.decoder = decoder.to(vae.vae_dtype)
    vae.latent_channels = config["latent_channels"]
    vae.downscale_ratio = vae.upscale_ratio = _downscaling(config)
    return vae


def _clip_vision(folder: Path) -> Any:
    import comfy.clip_vision

    vision = comfy.clip_vision.ClipVisionModel(str(folder / "config.json"))
    _fill(vision.model, {name: w for name, w in _tensors(folder).items() if not name.endswith("position_ids")})
    if read_config(folder)["num_hidden_layers"] < 2:
        network: Any = type(vision.model)

        class Shallow(network):  # ComfyUI asks for the output of the last layer but one, which nothing reads here
            def forward(self, *args: Any, intermediate_output: Any = None, **kwargs: Any) -> Any:
                del intermediate_output
                return super().forward(*args, intermediate_output=0, **kwargs)

        vision.model.__class__ = Shallow
    return vision


def _fill(module: Any, weights: Mapping[str, Tensor]) -> None:
    """Load every weight; ValueError if one has no place or a place has no weight."""
    missing, unexpected = module.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"nano's weights do not fit this version of ComfyUI ({len(missing)} missing, {len(unexpected)} unknown,"
            f" such as {[*missing, *unexpected][0]}): update unleak's pack."
        )


def unet_config(config: Config) -> dict[str, Any]:
    """Return the arguments of ComfyUI's UNetModel for a UNetSpatioTemporalConditionModel of diffusers.

    ValueError for a network that ComfyUI's cannot be: levels that are no multiple of the first, heads of two sizes.
    """
    widths, levels = config["block_out_channels"], len(config["block_out_channels"])
    layers = _per_level(config["layers_per_block"], levels)
    depths = _per_level(config["transformer_layers_per_block"], levels)
    heads = _per_level(config["num_attention_heads"], levels)
    sizes = {width // number for width, number in zip(widths, heads, strict=True)}
    if any(width % widths[0] for width in widths) or (len(sizes) > 1 and len(set(heads)) > 1):
        raise ValueError(f"ComfyUI's UNet cannot have levels of {widths} with {heads} heads.")
    down = [depth if "CrossAttn" in kind else 0 for kind, depth in zip(config["down_block_types"], depths, strict=True)]
    up = [
        depth if "CrossAttn" in kind else 0 for kind, depth in zip(config["up_block_types"][::-1], depths, strict=True)
    ]
    return {
        "image_size": 32,
        "use_checkpoint": False,
        "legacy": False,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": layers,
        "transformer_depth": [depth for depth, n in zip(down, layers, strict=True) for _ in range(n)],
        "transformer_depth_output": [depth for depth, n in zip(up, layers, strict=True) for _ in range(n + 1)],
        "transformer_depth_middle": depths[-1],
        "num_heads": heads[0] if len(sizes) > 1 else -1,
        "num_head_channels": -1 if len(sizes) > 1 else sizes.pop(),
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "context_dim": config["cross_attention_dim"],
        "num_classes": "sequential",
        "adm_in_channels": config["projection_class_embeddings_input_dim"],
        "use_temporal_attention": True,
        "use_temporal_resblock": True,
        "extra_ff_mix_layer": True,
        "use_spatial_context": True,
        "merge_strategy": "learned_with_images",
        "merge_factor": 0.0,
        "video_kernel_size": [3, 1, 1],
    }


def _per_level(value: Any, levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)


_RESNET: tuple[Rule, ...] = (
    (r"\.spatial_res_block\.", "."),
    (r"\.temporal_res_block\.", ".time_stack."),
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)


def unet_weights(weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return the weights of diffusers' UNetSpatioTemporalConditionModel under ComfyUI's names."""
    layers = _per_level(config["layers_per_block"], len(config["block_out_channels"]))
    attended = ["CrossAttn" in kind for kind in config["up_block_types"]]

    def down(level: str, layer: int) -> int:
        return 1 + sum(n + 1 for n in layers[: int(level)]) + layer

    def up(level: str, layer: int) -> int:
        return sum(n + 1 for n in layers[::-1][: int(level)]) + layer

    rules: tuple[Rule, ...] = (
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
        (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f"input_blocks.{down(m[1], int(m[2]))}.0."),
        (r"^down_blocks\.(\d+)\.attentions\.(\d+)\.", lambda m: f"input_blocks.{down(m[1], int(m[2]))}.1."),
        (
            r"^down_blocks\.(\d+)\.downsamplers\.0\.conv\.",
            lambda m: f"input_blocks.{down(m[1], layers[int(m[1])])}.0.op.",
        ),
        (r"^mid_block\.resnets\.(\d+)\.", lambda m: f"middle_block.{2 * int(m[1])}."),
        (r"^mid_block\.attentions\.(\d+)\.", lambda m: f"middle_block.{2 * int(m[1]) + 1}."),
        (r"^up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f"output_blocks.{up(m[1], int(m[2]))}.0."),
        (r"^up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda m: f"output_blocks.{up(m[1], int(m[2]))}.1."),
        (
            r"^up_blocks\.(\d+)\.upsamplers\.0\.conv\.",
            lambda m: f"output_blocks.{up(m[1], layers[::-1][int(m[1])])}.{1 + attended[int(m[1])]}.conv.",
        ),
    )
    attention: tuple[Rule, ...] = (
        (r"\.temporal_transformer_blocks\.", ".time_stack."),
        (r"\.time_pos_embed\.linear_1\.", ".time_pos_embed.0."),
        (r"\.time_pos_embed\.linear_2\.", ".time_pos_embed.2."),
    )
    renamed = {}
    for name, weight in weights.items():
        inner = attention if ".attentions." in name else _RESNET if ".resnets." in name else ()
        renamed[_renamed(name, (*rules, *inner))] = weight
    return renamed


def vae_config(config: Config) -> dict[str, Any]:
    """Return the `ddconfig` of ComfyUI's autoencoder from the configuration of AutoencoderKLTemporalDecoder.

    ValueError for levels that are no multiple of the first.
    """
    widths = config["block_out_channels"]
    if any(width % widths[0] for width in widths):
        raise ValueError(f"ComfyUI's autoencoder cannot have levels of {widths}.")
    return {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def vae_weights(weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return the weights of AutoencoderKLTemporalDecoder under ComfyUI's names.

    The middle of ComfyUI's decoder always has an attention and a second block; where the network has none, they are
    weights that add nothing. The convolution after the quantisation, which this class lacks, is the identity.
    """
    top = len(config["block_out_channels"]) - 1
    rules: tuple[Rule, ...] = (
        (r"\.mid_block\.resnets\.(\d+)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".down.\1.block.\2."),
        (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
        (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f".up.{top - int(m[1])}.block.{m[2]}."),
        (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f".up.{top - int(m[1])}.upsample."),
        (r"\.conv_norm_out\.", ".norm_out."),
        (r"^decoder\.time_conv_out\.", "decoder.conv_out.time_mix_conv."),
        (r"\.time_mixer\.mix_factor$", ".mix_factor"),
        (r"\.spatial_res_block\.", "."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
        (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
        (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    )
    renamed = {}
    for name, weight in weights.items():
        inner = _RESNET[1:] if ".temporal_res_block." in name else ()
        new = _renamed(name, (*inner, *rules))
        renamed[new] = weight[..., None, None] if ".attn_1." in new and weight.ndim == 2 else weight
    z = config["latent_channels"]
    renamed |= {"post_quant_conv.weight": torch.eye(z)[:, :, None, None], "post_quant_conv.bias": torch.zeros(z)}
    if config["layers_per_block"] < 2:
        renamed |= _nothing(renamed, config["block_out_channels"][-1])
    return renamed


def _nothing(weights: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return an attention and a second block for the decoder's middle that change nothing."""
    like = {name: w for name, w in weights.items() if name.startswith("decoder.mid.block_1.")}
    added = {name.replace("block_1", "block_2"): torch.zeros_like(w) for name, w in like.items()}
    for part, kernel in (("norm", ()), ("q", (1, 1)), ("k", (1, 1)), ("v", (1, 1)), ("proj_out", (1, 1))):
        shape = (width, width, *kernel) if kernel else (width,)
        added[f"decoder.mid.attn_1.{part}.weight"] = torch.zeros(shape)
        added[f"decoder.mid.attn_1.{part}.bias"] = torch.zeros(width)
    return added


def _renamed(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
