"""Moments of a model's latents over real videos: one pass, a few clips in memory at a time, resumed where it ended."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unleak.attach.latent_space import latent_space
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.decode_worker import ClipRequest, Decoding, read_clips
from unleak.data.image import MediaError
from unleak.data.pixels import to_unit
from unleak.families.latents import encode_video
from unleak.families.view import has_view, view_of
from unleak.stats.gathered import Gathered
from unleak.stats.progress import Progress
from unleak.stats.shards import Part, Shard, check_failures, joined


@dataclass(frozen=True)
class Estimate:
    """What was gathered, and the videos left out with their reasons."""

    gathered: Gathered
    skipped: dict[Path, str]

    @property
    def moments(self) -> LatentMoments:
        """Of all clips that were read."""
        return self.gathered.moments


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
    shard: Shard | None = None,
    decoding: Decoding | None = None,
    progress: Path | None = None,
    save_every: float = 20.0,
    beside: Gathered | None = None,
    on_video: Callable[[str | None], None] | None = None,
) -> Estimate:
    """Encode clips of `num_frames` at `fps` Hz, `height` x `width` pixels, and take the moments of their latents.

    Which clips these are depends on `seed` and the names of the files alone: the first `max_clips` (all if None) of the
    videos in an order that those give, `clips_per_video` from each at random places, fewer if it has no room. A video
    that cannot be read, or is too short, is skipped, not replaced: `on_video` is told after each one, with the reason
    or None. Of a video that breaks off in the middle, the clips before count. MediaError once more than the share
    `max_failures` of the videos of the run is skipped.

    `shard`: take this part of the run only. All shards merged, in any order, are of the clips that one process takes:
    the count is the same and the moments are up to rounding in float64, 1e-12 of the latents' size (with a `batch_size`
    of 1: the encoder's float32 depends in its last bits on the rest of a batch).

    `progress`: a file to write every `save_every` seconds and to go on from if it is there, to the same bits as without
    a break (in one batch size, which is checked, and on one device). It is left to the caller to remove.

    `beside`: what is to be merged with these moments; ValueError at once if it holds the same clips, and at the first
    clip if it is of other latents. Of the pipeline only the VAE is used.
    """
    shard = shard or Shard()
    meta = MomentsMeta(model, latent_space(pipe.vae), fps, height, width, source)
    plan = _plan(videos, clips_per_video, max_clips, seed)
    names = "\n".join(sorted(path.name for path in videos))
    run = {
        "model": model,
        "vae": meta.vae,
        "dtype": str(pipe.vae.dtype).removeprefix("torch."),
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": fps,
        "clips_per_video": clips_per_video,
        "max_clips": max_clips,
        "seed": seed,
        "videos": len(plan),
        "names": sha256(names.encode(errors="surrogateescape")).hexdigest()[:16],
    }
    if beside is not None:
        joined([*beside.parts, Part(run, shard, 0)], max_failures=1)
    kept = run | {"batch_size": batch_size, "shard": str(shard)}
    done = Progress() if progress is None else Progress.load(progress, kept)
    begun, saved = done.position, time.monotonic()
    batch: list[UInt8[np.ndarray, "f H W 3"]] = []
    asked = deque[_Place]()

    device = pipe.vae.device
    # Of the models whose VAE is known, only some have a view.
    to_latents = view_of(pipe).encode_video if has_view(pipe) else partial(encode_video, pipe)

    def encode(clips: Sequence[UInt8[np.ndarray, "f H W 3"]]) -> Float[Tensor, "b c f h w"]:
        pixels = torch.from_numpy(np.stack(clips)).to(device)
        return to_latents(to_unit(pixels))

    def empty(latents: Float[Tensor, "b c f h w"]) -> LatentMoments:
        moments = LatentMoments.empty(latents.shape[1:], meta)
        if beside is not None:
            moments.merge(beside.moments)
        return moments

    def told(reason: str | None) -> None:
        if on_video is not None:
            on_video(reason)

    def requests() -> Iterator[ClipRequest]:
        for place in _places(shard.share(plan), seed):
            if place.number < begun:
                if place.last and place.path not in done.skipped:
                    told(None)
            elif place.path not in done.skipped:
                asked.append(place)
                yield ClipRequest(place.path, num_frames, fps, (height, width), place.share, place.first)

    for reason in done.skipped.values():
        told(reason)
    with closing(read_clips(requests(), decoding=decoding)) as clips:
        for clip in clips:
            place = asked.popleft()
            if place.path in done.skipped:  # it was read ahead, before that was known
                continue
            if isinstance(clip, MediaError):
                done.skipped[place.path] = str(clip)
                told(str(clip))
                check_failures(len(done.skipped), len(plan), max_failures, next(iter(done.skipped.values())))
                continue
            if clip is not None:
                batch.append(clip.frames)
            if len(batch) == batch_size:
                latents = encode(batch)
                done.moments = (done.moments or empty(latents)).update(latents)
                done.position = place.number + 1
                batch.clear()
                if progress is not None and time.monotonic() - saved >= save_every:
                    done.save(progress, kept)
                    saved = time.monotonic()
            if place.last:
                told(None)
    if batch:
        latents = encode(batch)
        done.moments = (done.moments or empty(latents)).update(latents)
    if done.moments is None:
        if shard.count == 1:
            raise MediaError(
                f"none of {len(plan)} videos can be used; the first: {next(iter(done.skipped.values()), '')}"
            )
        # The shape of nothing: that of the latents of any clip.
        done.moments = empty(encode([np.zeros((num_frames, height, width, 3), np.uint8)]))
    return Estimate(Gathered(done.moments, (Part(run, shard, len(done.skipped)),)), done.skipped)


def _plan(videos: Sequence[Path], clips_per_video: int, max_clips: int | None, seed: int) -> list[tuple[Path, int]]:
    """The videos of a run in its order, each with the number of its clips."""
    order = sorted(videos, key=lambda path: (_draws(seed, "order", path).random(), path.parts[::-1]))
    full, rest = divmod(max_clips or len(order) * clips_per_video, clips_per_video)
    last = [(path, rest) for path in order[full : full + 1] if rest]
    return [(path, clips_per_video) for path in order[:full]] + last


@dataclass(frozen=True)
class _Place:
    """Where a clip begins: after `share` (0 to 1) of what its video has more than its length."""

    number: int
    path: Path
    share: float
    first: bool
    last: bool


def _places(plan: Sequence[tuple[Path, int]], seed: int) -> Iterator[_Place]:
    """The clips of each video of `plan`, as many as it says, by their time."""
    number = count()
    for path, clips in plan:
        draws = _draws(seed, "start", path)
        for k, share in enumerate(sorted(draws.random() for _ in range(clips))):
            yield _Place(next(number), path, share, k == 0, k == clips - 1)


def _draws(seed: int, purpose: str, path: Path) -> random.Random:
    return random.Random(sha256(f"{seed}/{purpose}/{path.name}".encode(errors="surrogateescape")).digest())
