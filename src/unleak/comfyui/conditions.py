"""Finds the conditioning image in the conditioning of a ComfyUI model, and changes it there.

A ComfyUI video model passes the image to the denoiser as `c_concat`: latents beside the noise, [b c f h w], for some
models with a mask that is 1 in the frames that hold an image. Model classes are recognised by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["ImagePlace", "image_place", "text_length", "with_image"]

Conditioning = list[dict[str, Any]]


@dataclass(frozen=True)
class ImagePlace:
    """Where the image's latents are in `c_concat`."""

    channels: slice
    """The channels of the image."""
    mask: slice | None
    """The channels of the mask, None without one."""
    frames_first: bool = False
    """Whether the layout is [f c h w], with the image in every frame (SVD)."""
    blank_frames: bool = False
    """Whether the frames without an image are encoded blank ones, of the same video (Wan)."""

    def image(self, concat: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b k *grid"]:
        """Return the image's latents, a view of `concat`."""
        return concat[:, self.channels]

    def shown(self, concat: Float[Tensor, "b c *grid"]) -> Bool[Tensor, " f"]:
        """Return which frames hold an image: those of the mask; without one, every frame of SVD, else the first."""
        if self.frames_first:
            return torch.ones(len(concat), dtype=torch.bool)
        if self.mask is None:
            return torch.arange(concat.shape[2]) == 0
        return (concat[:, self.mask] > 0.5).flatten(3).any(-1).any(1).any(0).cpu()


def image_place(model: Any, strategy: str) -> ImagePlace:
    """Return where the image is in `model` (a ComfyUI ModelPatcher); ValueError if it cannot be changed."""
    inner = model.model
    name = type(inner).__name__
    held = {"LTXV", "WAN22", "CosmosVideo", "CosmosPredict2"}
    latent = int(model.get_model_object("latent_format").latent_channels)
    if name in ("WAN21", "WAN21_Camera"):
        extra = inner.diffusion_model.patch_embedding.weight.shape[1] - latent
        if extra == latent + 4:
            return ImagePlace(slice(4, None), slice(0, 4), blank_frames=True)
        if extra == latent:
            return ImagePlace(slice(0, None), None)
    elif name == "HunyuanVideoI2V":
        return ImagePlace(slice(0, latent), slice(latent, None))
    elif name == "HunyuanVideoSkyreelsI2V":
        return ImagePlace(slice(0, latent), None)
    elif name == "HunyuanVideo15":
        return ImagePlace(slice(0, latent), slice(latent, None))
    elif name == "SVD_img2vid":
        return ImagePlace(slice(None), None, frames_first=True)
    if name in held:
        raise ValueError(
            f"{strategy} cannot act on this model ({name}): it holds the image in place by a noise mask, as the first"
            " frame of the video itself. unleak Motion and unleak Start work."
        )
    raise ValueError(
        f"{strategy} cannot act on this model ({name}): its image does not enter the denoiser as latents beside the"
        " noise, or is not known to. unleak Motion and unleak Start work."
    )


def with_image(
    conditioning: Conditioning | None, place: ImagePlace, change: Callable[[Tensor, Bool[Tensor, " f"]], Tensor]
) -> Conditioning | None:
    """Return a copy of `conditioning` (as a sampler runs it) in which `change` has been applied to its images.

    change: from the image's latents [b k f h w] (SVD: [f k h w]) and the frames that hold an image, to new latents.
    """
    if conditioning is None:
        return None
    return [_with_image(entry, place, change) for entry in conditioning]


def _with_image(
    entry: dict[str, Any], place: ImagePlace, change: Callable[[Tensor, Bool[Tensor, " f"]], Tensor]
) -> dict[str, Any]:
    held = entry.get("model_conds", {}).get("c_concat")
    if held is None:
        return entry
    concat = held.cond.clone()
    concat[:, place.channels] = change(place.image(held.cond), place.shown(held.cond)).to(concat)
    return {**entry, "model_conds": {**entry["model_conds"], "c_concat": type(held)(concat)}}


def text_length(conditioning: Conditioning | None) -> int:
    """Return the number of tokens of the prompt in `conditioning` (as a sampler runs it), 0 if it has none."""
    for entry in conditioning or ():
        held = entry.get("model_conds", {}).get("c_crossattn")
        if held is not None:
            return int(held.cond.shape[1])
    return 0
