"""The paper's fine-tunes of Stable Video Diffusion: a training checkpoint to a UNet that diffusers loads, and back."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from unleak.data.atomic import folder_written_whole, written_whole
from unleak.families.checkpoint import read_checkpoint, unwrap

__all__ = ["convert", "restore", "unet_weights"]

# That of stabilityai/stable-video-diffusion-img2vid where it differs from the defaults of the class.
UNET: Mapping[str, Any] = {"num_attention_heads": (5, 10, 20, 20), "num_frames": 14, "sample_size": 96}


def unet_weights(
    content: Mapping[str, Any], wanted: Mapping[str, torch.Size], *, ema: bool = True
) -> dict[str, Tensor]:
    """The UNet's parameters in a checkpoint, `wanted` being their names and shapes in the order of the network.

    `ema`: the averaged ones if there are any, which are a list in that order, without names. Strict: ValueError for
    parameters missing, left over or of another shape.
    """
    state, _ = unwrap(content)
    average = content.get("ema_state") if ema else None
    if average is not None:
        values = average["shadow_params"] if isinstance(average, Mapping) else average
        if len(values) != len(wanted):
            raise ValueError(f"{len(values)} averaged parameters for a network of {len(wanted)}")
        averaged = dict(zip(wanted, values, strict=True))
    unknown, missing = sorted(state.keys() - wanted.keys()), sorted(wanted.keys() - state.keys())
    if unknown or missing:
        kind, names = ("missing", missing) if missing else ("unknown", unknown)
        raise ValueError(f"not a UNet of Stable Video Diffusion: {', '.join(names[:3])}, of {len(names)} {kind}")
    chosen = state if average is None else averaged
    for name, shape in wanted.items():
        if chosen[name].shape != shape:
            raise ValueError(f"{name} is {list(chosen[name].shape)}, expected {list(shape)}")
    return {name: chosen[name] for name in wanted}


def convert(
    source: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    ema: bool = True,
    config: Mapping[str, Any] | None = None,
) -> int:
    """Write the UNet of a checkpoint as a folder; with `base`, a whole pipeline: that folder with this UNet.

    `config` is the UNet's in diffusers, by default that of `base`, or the published one. Returns the number of
    parameters. Raises ValueError, in one line, for a checkpoint of something else.
    """
    content = read_checkpoint(source)
    if config is None:
        config = UNET if base is None else UNetSpatioTemporalConditionModel.load_config(str(Path(base) / "unet"))
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel.from_config(dict(config))
    try:
        weights = unet_weights(content, {name: value.shape for name, value in unet.named_parameters()}, ema=ema)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    unet.load_state_dict(weights, assign=True)
    with folder_written_whole(out) as folder:
        if base is not None:
            shutil.copytree(base, folder, ignore=shutil.ignore_patterns("unet"), dirs_exist_ok=True)
        unet.save_pretrained(folder if base is None else folder / "unet", max_shard_size="2GB")
    return sum(tensor.numel() for tensor in weights.values())


def restore(folder: str | Path, out: str | Path) -> int:
    """Write the UNet in a folder, or in a pipeline's, as a checkpoint of the form that is published; its tensors."""
    folder = Path(folder)
    unet = UNetSpatioTemporalConditionModel.from_pretrained(
        folder, subfolder="unet" if (folder / "unet").is_dir() else None, torch_dtype="auto", local_files_only=True
    )
    with written_whole(out) as temporary:
        torch.save({"state_dict": unet.state_dict()}, temporary)
    return len(unet.state_dict())
