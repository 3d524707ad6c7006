"""What a run hands over: the pipeline with the average weights, or the adapters in the forms that others read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unleak.train import checkpoint
from unleak.train.config import Recipe, dump_recipe
from unleak.train.networks import DTYPES, adapter_weights
from unleak.zoo import hub

__all__ = ["COMFYUI", "DIFFUSERS", "comfyui_names", "export_folder", "write_adapters", "write_pipeline"]

DIFFUSERS, COMFYUI = "pytorch_lora_weights.safetensors", "comfyui.safetensors"


def export_folder(recipe: Recipe) -> Path:
    """Where a run leaves what it made."""
    return recipe.output / ("lora" if recipe.lora else "pipeline")


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
        if renamed := comfyui_names(type(getattr(denoiser.pipe, network)).__name__, scaled):
            files[f"{apart}{COMFYUI}"] = renamed
    with checkpoint.published(folder) as partial:
        for name, tensors in files.items():
            save_file(tensors, partial / name, metadata={"format": "pt"})
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))


def comfyui_names(network: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's adapters by the names that ComfyUI knows its layers by; none for a class it does not have."""
    if network not in _ORIGINAL:
        return {}
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, original in _ORIGINAL[network]:
            name = re.sub(pattern, original, name)
        renamed[f"diffusion_model.{name}"] = tensor
    return renamed


# Layers as diffusers calls them -> as the network's authors do, which ComfyUI follows.
_ORIGINAL: dict[str, tuple[tuple[str, str], ...]] = {
    "WanTransformer3DModel": (
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.to_([qkv])\.", r".\1."),
        (r"\.to_out\.0\.", ".o."),
        (r"\.add_([kv])_proj\.", r".\1_img."),
        (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
        (r"\.ffn\.net\.2\.", ".ffn.2."),
    ),
}


@torch.no_grad()
def _put(weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(average[name])
