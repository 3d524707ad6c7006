"""Moments of a model's latents over real videos: one pass, one batch in memory at a time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.attach.latent_space import latent_space
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.image import MediaError
from unleak.data.pixels import to_unit
from unleak.data.video import read_video, video_duration
from unleak.families.svd.denoiser import SVDDenoiser


@dataclass(frozen=True)
class Estimate:
    """Moments, the number of clips gathered for them, and the videos left out with their reasons."""

    moments: LatentMoments
    clips: int
    skipped: dict[Path, str]


def estimate(
    pipe: Any,
    videos: Sequence[Path],
    *,
    num_frames: int,
    height: int,
    width: int,
    fps: float,
    clips_per_video: int = 1,
    max_clips: int | None = None,
    max_failures: float = 0.05,
    batch_size: int = 1,
    seed: int = 0,
    model: str = "",
    source: str = "",
    onto: LatentMoments | None = None,
    on_video: Callable[[str | None], None] | None = None,
) -> Estimate:
    """Encode clips of `num_frames` at `fps` Hz, `height` x `width` pixels, and take the moments of their latents.

    Where a clip begins in its video, and which videos are used when `max_clips` is fewer than there are, depends on
    `seed` and the names of the files alone. A video that cannot be read, or is too short, is skipped: `on_video` is
    told after each one, with the reason or None. Raises MediaError once more than the share `max_failures` of the
    videos is skipped. Of a video that breaks off in the middle, the clips before count. `onto`: moments of an earlier
    run, to which these are added; ValueError at the first clip if they are of other latents. Of the pipeline only the
    VAE is used.
    """
    denoiser = SVDDenoiser(pipe)
    meta = MomentsMeta(model, latent_space(pipe.vae), fps, height, width, source)
    moments: LatentMoments | None = None
    clips, skipped = 0, dict[Path, str]()
    batch: list[Float[Tensor, "f 3 h w"]] = []

    def flush() -> None:
        nonlocal moments
        if batch:
            latents = denoiser.encode_video(torch.stack(batch).to(pipe.vae.device))
            if moments is None:
                moments = LatentMoments.empty(latents.shape[1:], meta)
                if onto is not None:
                    moments = moments.merge(onto)
            moments = moments.update(latents)
            batch.clear()

    order = sorted(videos, key=lambda path: _draws(seed, "order", path).random())
    tried = 0
    for path in order:
        if max_clips is not None and clips >= max_clips:
            break
        tried += 1
        reason = None
        try:
            for start in _starts(path, num_frames / fps, clips_per_video, _draws(seed, "start", path)):
                clip = read_video(path, num_frames=num_frames, fps=fps, start=start, size=(height, width))
                batch.append(to_unit(torch.from_numpy(clip.frames)))
                clips += 1
                if len(batch) == batch_size:
                    flush()
                if clips == max_clips:
                    break
        except (MediaError, OSError) as error:
            reason = skipped[path] = str(error)
        if on_video is not None:
            on_video(reason)
        if len(skipped) > max_failures * len(order):
            break
    flush()
    if len(skipped) > max_failures * tried or moments is None:
        raise MediaError(
            f"{len(skipped)} of {tried} videos cannot be used, more than the share of {max_failures:g} allowed "
            f"(--max-failures); the first: {next(iter(skipped.values()))}"
        )
    return Estimate(moments, clips, skipped)


def _starts(path: Path, length: float, count: int, draws: random.Random) -> list[float]:
    """Seconds at which `count` clips of `length` begin, uniform over the video; 0 where its duration is unknown."""
    spare = max(0.0, (video_duration(path) or 0.0) - length)
    return sorted(draws.uniform(0, spare) for _ in range(count if spare else 1))


def _draws(seed: int, purpose: str, path: Path) -> random.Random:
    return random.Random(sha256(f"{seed}/{purpose}/{path.name}".encode()).digest())
