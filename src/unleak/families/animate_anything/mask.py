"""A motion mask from what people draw: anything but black moves."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

__all__ = ["latent_mask", "moving"]

_BLACK = 16  # of 255: what JPEG makes of black stays black; labelling tools paint classes as dark as 128 in one channel


def moving(mask: Image.Image) -> Bool[np.ndarray, "H W"]:
    """Where a mask image says that things move: where any of its channels is brighter than black; clear is black."""
    if mask.has_transparency_data:
        rgba = mask.convert("RGBA")
        mask = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    result: Bool[np.ndarray, "H W"] = np.asarray(mask.convert("RGB")).max(axis=-1) > _BLACK
    return result


def latent_mask(
    mask: Image.Image | np.ndarray | Tensor | None, *, size: tuple[int, int], latent_size: tuple[int, int]
) -> Float[Tensor, "1 1 1 h w"]:
    """1 where the latents move, 0 where they stay, in between on an edge; None: everything moves.

    `size` and `latent_size` are (height, width). An image is scaled to `size` first; an array or a tensor [H W] of
    numbers from 0 to 1, or of booleans, is taken as it is. Raises ValueError for another shape or other numbers.
    """
    if mask is None:
        return torch.ones(1, 1, 1, *latent_size)
    if isinstance(mask, Image.Image):
        mask = moving(mask.resize((size[1], size[0]), Image.Resampling.NEAREST))
    weights = torch.as_tensor(mask).float()
    if weights.ndim != 2 or not bool(((weights >= 0) & (weights <= 1)).all()):
        raise ValueError(
            f"mask: give an image, or numbers from 0 (stays) to 1 (moves) of shape [height width], not"
            f" {list(weights.shape)} from {weights.min().item():g} to {weights.max().item():g}."
        )
    return F.interpolate(weights[None, None], latent_size, mode="bilinear", align_corners=False)[:, :, None]
