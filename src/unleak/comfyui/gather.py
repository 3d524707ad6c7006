"""Gathers the moments of a model's latents inside ComfyUI, clip by clip, for Analytic-Init."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.files import VIDEO_SUFFIXES
from unleak.data.image import MediaError
from unleak.data.video import read_video

__all__ = ["clips_of_batch", "clips_of_folder", "gather"]


def clips_of_batch(frames: Float[Tensor, "n h w c"], num_frames: int) -> Iterator[Float[Tensor, "f h w c"]]:
    """Cut a batch of frames, videos one after the other, into clips of `num_frames`; ValueError if they do not fit."""
    if len(frames) % num_frames:
        raise ValueError(
            f"images holds {len(frames)} frames, which is not a whole number of videos of {num_frames} frames: give"
            " num_frames of each video, one video after the other."
        )
    yield from frames.split(num_frames)


def clips_of_folder(
    folder: Path, num_frames: int, *, height: int, width: int, fps: float, skipped: list[str]
) -> Iterator[Float[Tensor, "f h w 3"]]:
    """Read the first `num_frames` frames of every video in `folder`, one video in memory at a time.

    Frames are scaled to cover `height` x `width` pixels and cropped at the centre; `fps` 0 takes every frame. Videos
    that cannot be used are left out, and their reasons are added to `skipped`. ValueError if the folder holds no video.
    """
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{folder} holds no video: put some there ({', '.join(sorted(VIDEO_SUFFIXES))}).")
    for path in videos:
        try:
            clip = read_video(path, num_frames=num_frames, fps=fps or None, size=(height, width))
        except MediaError as error:
            skipped.append(str(error))
        else:
            yield torch.from_numpy(clip.frames).float() / 255


def gather(
    model: Any,
    vae: Any,
    clips: Iterable[Float[Tensor, "f h w c"]],
    meta: MomentsMeta,
    before: LatentMoments | None = None,
) -> LatentMoments:
    """Encode `clips` (values in 0 to 1) with `vae` and return the moments of their latents as `model` sees them.

    model, vae: ComfyUI's ModelPatcher and VAE. before: moments to add to. ValueError if there is no clip.
    """
    moments = before
    for clip in clips:
        latents = model.model.process_latent_in(vae.encode(clip[..., :3]))
        if latents.ndim == 4:  # an image VAE: [f c h w]
            latents = latents.transpose(0, 1)[None]
        channels = model.get_model_object("latent_format").latent_channels
        if latents.shape[1] != channels:
            raise ValueError(
                f"this VAE makes latents of {latents.shape[1]} channels, and the model has {channels}: give the VAE of"
                " the model."
            )
        moments = (moments or LatentMoments.empty(latents.shape[1:], meta)).update(latents)
    if moments is None:
        raise ValueError("no video could be used: give images, or a folder with videos of at least num_frames frames.")
    return moments
