"""What a run hands over: the pipeline with the average weights, or the adapters in the forms that others read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unleak.data.atomic import check_writable
from unleak.families.registry import families, imported
from unleak.train import checkpoint
from unleak.train.config import Recipe, RecipeError, dump_recipe
from unleak.train.networks import DTYPES, adapter_weights, load_view, trained_weights
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
    view = load_view(recipe)
    weights = trained_weights(recipe, view)
    average = {f"ema/{name}": torch.zeros_like(weight.detach()) for name, weight in weights.items()}
    checkpoint.compare(stored, average)
    checkpoint.load(stored, average)
    average = {name.removeprefix("ema/"): tensor for name, tensor in average.items()}
    write_run(view, weights, average, recipe, folder)
    return folder


def export_folder(recipe: Recipe) -> Path:
    """Return where a run leaves what it made."""
    return recipe.output / ("lora" if recipe.lora else "pipeline")


def write_run(
    view: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """Write the pipeline with the average weights or, where adapters were trained, the adapters."""
    write = write_adapters if recipe.lora else write_pipeline
    write(view, weights, average, recipe, folder)


def write_pipeline(
    view: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """Write the pipeline with the average weights in the place of the trained ones."""
    pipe = view.pipe
    _put(weights, average)
    for network in view.networks.values():
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
    view: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], recipe: Recipe, folder: Path
) -> None:
    """Write the average adapters by diffusers' names and, if ComfyUI has the network, by its own names.

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
    adapted = adapter_weights(view, dict(average))
    for network, tensors in adapted.items():
        scaled = {
            name: (tensor * (scale if "lora_B" in name else 1)).to(dtype).cpu().contiguous()
            for name, tensor in tensors.items()
        }
        apart = "" if len(adapted) == 1 else f"{network}."
        prefix = network.removesuffix("_2")
        files[f"{apart}{DIFFUSERS}"] = {f"{prefix}.{name}": tensor for name, tensor in scaled.items()}
        if renamed := comfyui_names(getattr(view.pipe, network), scaled):
            files[f"{apart}{COMFYUI}"] = renamed
    with checkpoint.published(folder) as partial:
        for name, tensors in files.items():
            save_file(tensors, partial / name, metadata={"format": "pt"})
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))


def comfyui_names(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters by the names that ComfyUI knows the network's layers by; none if it does not have the network."""
    for family in families():
        if family.adapter_names and (names := imported(family.adapter_names)(network, tensors)):
            found: dict[str, Tensor] = names
            return found
    return {}


@torch.no_grad()
def _put(weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(average[name])
