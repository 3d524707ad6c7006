"""The frames in whatever a pipeline returns."""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

__all__ = ["frames_of"]


def frames_of(output: Any) -> UInt8[np.ndarray, "f h w 3"]:
    """Return the first video of a pipeline's output: its `frames` or its first element; PIL images, arrays or a tensor.

    Floating-point values are in [0, 1], as diffusers' video processor gives them; tensors have their channels before
    height and width. Raises ValueError for anything that is no video, FloatingPointError for NaN and infinity.
    """
    video = output
    for name in ("frames", "video"):
        video = getattr(output, name, video)
    video = video[0] if isinstance(video, tuple) else video
    if (
        isinstance(video, list | tuple)
        and len(video)
        and (isinstance(video[0], list | tuple) or np.ndim(video[0]) == 4)
    ):
        video = video[0]  # of a batch
    if isinstance(video, list | tuple):
        video = np.stack([np.asarray(frame) for frame in video])
    if isinstance(video, torch.Tensor):
        video = (video.float() if video.is_floating_point() else video).cpu()
        video = video.movedim(-3, -1).numpy()
    if not isinstance(video, np.ndarray) or video.ndim not in (4, 5) or video.shape[-1] != 3:
        raise ValueError(f"the pipeline returned no video but {_shape(video)}")
    video = video[0] if video.ndim == 5 else video
    if video.dtype == np.uint8:
        return video
    if not np.isfinite(video).all():
        raise FloatingPointError("the model gave NaN")
    return (video.astype(np.float32, copy=False) * np.float32(255)).round().clip(0, 255).astype(np.uint8)


def _shape(value: Any) -> str:
    return f"{type(value).__name__} of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
