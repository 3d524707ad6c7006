"""The folder that Animate-Anything is published as (`animate_anything_512_v1.02`), read without running code of it.

It is a pipeline folder of diffusers 0.24 whose `model_index.json` names two classes of the original repository. These
names are only compared with what is expected; the classes are ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unleak.data.atomic import folder_written_whole
from unleak.data.reading import read_json
from unleak.families.animate_anything.pipeline import AnimateAnythingPipeline
from unleak.families.animate_anything.unet import AnimateAnythingUNet
from unleak.families.checkpoint import read_checkpoint
from unleak.families.words import check_words

__all__ = ["convert", "is_original", "load_original", "unet_weights"]

_INDEX: Mapping[str, tuple[str, ...]] = {
    "unet": ("models.unet_3d_condition_mask", "UNet3DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
_SCHEDULERS = {"DDIMScheduler", "DDPMScheduler"}  # DDPM where training saved it; the same configuration
_UNUSED = "motion_embedding."
"""Weights that the published network has and never uses."""


def is_original(folder: str | Path) -> bool:
    """Whether `folder` is one of the original repository, by its `model_index.json`."""
    try:
        index = read_json(Path(folder) / "model_index.json", dict)
    except (OSError, ValueError):
        return False
    return index.get("_class_name") == "LatentToVideoPipeline"


def load_original(folder: str | Path, *, torch_dtype: torch.dtype = torch.float32) -> AnimateAnythingPipeline:
    """The pipeline in an original folder, weights in safetensors or `.bin` (read as data, never run).

    Raises ValueError, in one line, for another folder, and for weights missing, left over or of another shape.
    """
    folder = Path(folder)
    index = _read(folder / "model_index.json")
    for part, expected in _INDEX.items():
        if tuple(index.get(part) or ()) != expected:
            raise ValueError(
                f"{folder}: no folder of Animate-Anything: its {part} is {index.get(part)}, not {list(expected)}"
            )
    if (index.get("scheduler") or [None, None])[1] not in _SCHEDULERS:
        raise ValueError(f"{folder}: its scheduler is {index.get('scheduler')}, not one of {sorted(_SCHEDULERS)}")
    encoder = _library(CLIPTextModel, folder, "text_encoder", torch_dtype)
    words = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    check_words(words, encoder.config, f"{folder / 'tokenizer'}")
    return AnimateAnythingPipeline(
        vae=_library(AutoencoderKL, folder, "vae", torch_dtype),
        text_encoder=encoder,
        tokenizer=words,
        unet=_unet(folder / "unet", torch_dtype),
        scheduler=DDIMScheduler.from_config(_read(folder / "scheduler" / "scheduler_config.json")),
    )


def convert(folder: str | Path, out: str | Path) -> AnimateAnythingPipeline:
    """Write an original folder as one that `AnimateAnythingPipeline.from_pretrained` reads, all in safetensors."""
    pipe = load_original(folder)
    with folder_written_whole(out) as written:
        pipe.save_pretrained(written, safe_serialization=True, max_shard_size="2GB")
    return pipe


def unet_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the published network under the names of `AnimateAnythingUNet`: the same, without the unused ones."""
    return {name: tensor for name, tensor in original.items() if not name.startswith(_UNUSED)}


def _unet(folder: Path, dtype: torch.dtype) -> AnimateAnythingUNet:
    config = {name: value for name, value in _read(folder / "config.json").items() if not name.startswith("_")}
    try:
        with torch.device("meta"):
            unet = AnimateAnythingUNet(**config)
        unet.load_state_dict(unet_weights(_weights(folder)), assign=True)
    except (TypeError, RuntimeError) as error:  # an unknown entry of the configuration; weights that do not fit
        raise ValueError(f"{folder}: not the network that is expected: {' '.join(str(error).split())[:300]}") from error
    return (unet if unet.dtype == dtype else unet.to(dtype)).eval()


def _weights(folder: Path) -> dict[str, Tensor]:
    safe, pickled = (folder / f"diffusion_pytorch_model.{ending}" for ending in ("safetensors", "bin"))
    for file in (safe, pickled):
        if file.is_file():
            return dict(read_checkpoint(file))
    raise ValueError(f"{folder}: neither {safe.name} nor {pickled.name} is there; download the folder again")


def _library(cls: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """A network of a library, strictly: from_pretrained leaves missing weights random."""
    try:
        network, report = cls.from_pretrained(
            folder, subfolder=part, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{folder / part}: {' '.join(str(error).split())[:300]}") from error
    wrong = {kind: sorted(map(str, report.get(kind) or ())) for kind in ("missing_keys", "unexpected_keys")}
    wrong["unexpected_keys"] = [name for name in wrong["unexpected_keys"] if "position_ids" not in name]  # a constant
    if any(wrong.values()) or report.get("mismatched_keys"):
        raise ValueError(f"{folder / part}: not the weights that are expected: {str(wrong)[:300]}")
    return network


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, dict)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; give the folder as it was published") from error
    except ValueError as error:
        raise ValueError(f"{error}; download it again") from error
