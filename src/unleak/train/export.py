"""What a run hands over: the pipeline with the average weights, or the adapters in the forms that others read."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unleak.data.atomic import check_writable
from unleak.train import checkpoint
from unleak.train.config import Recipe, RecipeError, dump_recipe
from unleak.train.networks import DTYPES, adapter_weights, load_denoiser, trained_weights
from unleak.zoo import hub

__all__ = ["COMFYUI", "DIFFUSERS", "comfyui_names", "export", "export_folder", "write_adapters", "write_run"]

DIFFUSERS, COMFYUI = "pytorch_lora_weights.safetensors", "comfyui.safetensors"


def export(recipe: Recipe, folder: Path) -> Path:
    """Write the average weights of the newest checkpoint as a pipeline folder, or the adapters, and return `folder`.

    A run in progress is not disturbed. Raises RecipeError if `folder` holds something else or there is no checkpoint,
    ValueError if the checkpoint is damaged or does not fit the network.
    """
    if folder.exists() and not (folder / "recipe.yaml").exists():  # every export has one
        raise RecipeError(f"{folder} exists and is no pipeline of a training run: give --export a new folder")
    stored = checkpoint.newest(recipe.output / "checkpoints")
    if stored is None:
        raise RecipeError(f"no checkpoint in {recipe.output / 'checkpoints'} to export: train first")
    check_writable(folder.parent)
    denoiser = load_denoiser(recipe)
    weights = trained_weights(recipe, denoiser)
    average = {f"ema/{name}": torch.zeros_like(weight.detach()) for name, weight in weights.items()}
    checkpoint.compare(stored, average)
    checkpoint.load(stored, average)
    average = {name.removeprefix("ema/"): tensor for name, tensor in average.items()}
    write_run(denoiser, weights, average, recipe, folder)
    return folder


def export_folder(recipe: Recipe) -> Path:
    """Return where a run leaves what it made."""
    return recipe.output / ("lora" if recipe.lora else "pipeline")


def write_run(
    denoiser: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """Write the pipeline with the average weights or, where adapters were trained, the adapters."""
    write = write_adapters if recipe.lora else write_pipeline
    write(denoiser, weights, average, recipe, folder)


def write_pipeline(
    denoiser: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """The pipeline with the average in the place of the trained weights."""
    pipe = denoiser.pipe
    _put(weights, average)
    for network in denoiser.networks.values():
        network.eval()
    with checkpoint.published(folder) as partial:
        with hub.quiet():
            if recipe.dtype != "fp32":
                pipe.to(DTYPES[recipe.dtype])
            pipe.save_pretrained(partial)
        index = partial / "model_index.json"
        # Without torchvision, transformers names a fallback class here that one with torchvision may not have.
        index.write_text(index.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor"))
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))


def write_adapters(
    denoiser: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """The average adapters by diffusers' names and, where ComfyUI reads adapters of this network, by its own.

    `pipe.load_lora_weights(FOLDER)`, or a network's own `load_lora_adapter`. Both programs call the second network of
    Wan 2.2 as the first and load each by itself (diffusers: `load_into_transformer_2=True`), so of two experts there
    are files of their own, whose names begin with the network's.

    alpha is not the rank: it is written into `lora_B`, since the two programs read it from different places.
    """
    del weights
    assert recipe.lora is not None
    scale = (recipe.lora.alpha or recipe.lora.rank) / recipe.lora.rank
    dtype = DTYPES[recipe.dtype]
    files = dict[str, dict[str, Tensor]]()
    adapted = adapter_weights(denoiser, dict(average))
    for network, tensors in adapted.items():
        scaled = {
            name: (tensor * (scale if "lora_B" in name else 1)).to(dtype).cpu().contiguous()
            for name, tensor in tensors.items()
        }
        apart = "" if len(adapted) == 1 else f"{network}."
        prefix = network.removesuffix("_2")
        files[f"{apart}{DIFFUSERS}"] = {f"{prefix}.{name}": tensor for name, tensor in scaled.items()}
        if renamed := comfyui_names(getattr(denoiser.pipe, network), scaled):
            files[f"{apart}{COMFYUI}"] = renamed
    with checkpoint.published(folder) as partial:
        for name, tensors in files.items():
            save_file(tensors, partial / name, metadata={"format": "pt"})
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))


def comfyui_names(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's adapters by the names that ComfyUI knows its layers by; none for a network that it does not have."""
    kind = type(network).__name__
    of_svd = kind == "UNetSpatioTemporalConditionModel"
    if kind not in _ORIGINAL or (of_svd and tuple(network.config.block_out_channels) != _SVD_CHANNELS):
        return {}
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, original in _ORIGINAL[kind]:
            name = re.sub(pattern, original, name)
        renamed[f"diffusion_model.{name}"] = tensor
    return renamed


_SVD_CHANNELS = (320, 640, 1280, 1280)  # a smaller network of that class is none of ComfyUI's


def _block(name: str, first: int, part: str, *, layer: int | None = None) -> Callable[[re.Match[str]], str]:
    """Level and layer as diffusers counts them -> a part of a block as the original does, three blocks a level."""
    return lambda found: f"{name}.{first + 3 * int(found[1]) + (int(found[2]) if layer is None else layer)}.{part}."


# Layers as diffusers calls them -> as the network's authors do, which ComfyUI follows.
_ORIGINAL: dict[str, tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]] = {
    "WanTransformer3DModel": (
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.to_([qkv])\.", r".\1."),
        (r"\.to_out\.0\.", ".o."),
        (r"\.add_([kv])_proj\.", r".\1_img."),
        (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
        (r"\.ffn\.net\.2\.", ".ffn.2."),
    ),
    "LTXVideoTransformer3DModel": (
        (r"^proj_in\.", "patchify_proj."),
        (r"^time_embed\.", "adaln_single."),
    ),
    # Stable Video Diffusion.
    "UNetSpatioTemporalConditionModel": (
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
        (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^conv_out\.", "out.2."),
        (r"^down_blocks\.(\d)\.resnets\.(\d)\.", _block("input_blocks", 1, "0")),
        (r"^down_blocks\.(\d)\.attentions\.(\d)\.", _block("input_blocks", 1, "1")),
        (r"^down_blocks\.(\d)\.downsamplers\.0\.conv\.", _block("input_blocks", 1, "0.op", layer=2)),
        (r"^mid_block\.resnets\.0\.", "middle_block.0."),
        (r"^mid_block\.attentions\.0\.", "middle_block.1."),
        (r"^mid_block\.resnets\.1\.", "middle_block.2."),
        (r"^up_blocks\.(\d)\.resnets\.(\d)\.", _block("output_blocks", 0, "0")),
        (r"^up_blocks\.(\d)\.attentions\.(\d)\.", _block("output_blocks", 0, "1")),
        # Behind an attention, which the first level up has none of.
        (r"^up_blocks\.0\.upsamplers\.0\.conv\.", "output_blocks.2.1.conv."),
        (r"^up_blocks\.(\d)\.upsamplers\.0\.conv\.", _block("output_blocks", 0, "2.conv", layer=2)),
        (r"\.spatial_res_block\.", "."),
        (r"\.temporal_res_block\.", ".time_stack."),
        (r"\.temporal_transformer_blocks\.", ".time_stack."),
        (r"\.time_pos_embed\.linear_1\.", ".time_pos_embed.0."),
        (r"\.time_pos_embed\.linear_2\.", ".time_pos_embed.2."),
        (r"\.conv1\.", ".in_layers.2."),
        (r"\.conv2\.", ".out_layers.3."),
        (r"\.time_emb_proj\.", ".emb_layers.1."),
        (r"\.conv_shortcut\.", ".skip_connection."),
    ),
}


@torch.no_grad()
def _put(weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(average[name])
