"""Moments of a model's latents over real videos: one pass, a few clips in memory at a time, resumed where it ended."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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
    """The moments that were gathered, and the videos that were left out with their reasons."""

    gathered: Gathered
    skipped: dict[Path, str]

    @property
    def moments(self) -> LatentMoments:
        """Return the moments of all clips that were read."""
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
    """Encode clips of `num_frames` at `fps` Hz, `height` x `width` pixels, and return the moments of their latents.

    Which clips these are depends on `seed` and the names of the files alone: the first `max_clips` (all if None) of the
    videos in an order that those give, `clips_per_video` from each at random places, fewer if it has no room. A video
    that cannot be read, or is too short, is skipped, not replaced: `on_video` is called after each one, with the reason
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
    clip = ClipRequest(Path(), num_frames, fps, (height, width))
    stream = _Stream(pipe, meta, clip, list(_places(shard.share(plan), seed)), done, beside, on_video)

    def check(skipped: dict[Path, str]) -> None:
        check_failures(len(skipped), len(plan), max_failures, next(iter(skipped.values())))

    stream.run(decoding, batch_size, check, _Saver(progress, kept, save_every))
    if done.moments is None:
        if shard.count == 1:
            raise MediaError(
                f"none of {len(plan)} videos can be used; the first: {next(iter(done.skipped.values()), '')}"
            )
        # The shape of nothing: that of the latents of any clip.
        done.moments = stream.empty(stream.encode([np.zeros((num_frames, height, width, 3), np.uint8)]))
    return Estimate(Gathered(done.moments, (Part(run, shard, len(done.skipped)),)), done.skipped)


class _Stream:
    """The clips of one process, read and encoded one after another into the moments of `done`."""

    def __init__(
        self,
        pipe: Any,
        meta: MomentsMeta,
        clip: ClipRequest,
        places: "Sequence[_Place]",
        done: Progress,
        beside: Gathered | None,
        on_video: Callable[[str | None], None] | None,
    ):
        self.device, self.meta, self.clip, self.places = pipe.vae.device, meta, clip, places
        # Of the models whose VAE is known, only some have a view.
        self.to_latents = view_of(pipe).encode_video if has_view(pipe) else partial(encode_video, pipe)
        self.done, self.begun, self.beside = done, done.position, beside
        self.on_video = on_video
        self.asked = deque[_Place]()

    def run(
        self,
        decoding: Decoding | None,
        batch_size: int,
        check: Callable[[dict[Path, str]], None],
        save: "_Saver",
    ) -> None:
        """Read all clips that are not done; `check` is called with the videos left out when there is one more."""
        done, batch = self.done, list[UInt8[np.ndarray, "f H W 3"]]()
        for reason in done.skipped.values():
            self._finished(reason)
        with closing(read_clips(self._requests(), decoding=decoding)) as clips:
            for clip in clips:
                place = self.asked.popleft()
                if place.path in done.skipped:  # it was read ahead, before that was known
                    continue
                if isinstance(clip, MediaError):
                    done.skipped[place.path] = str(clip)
                    self._finished(str(clip))
                    check(done.skipped)
                    continue
                if clip is not None:
                    batch.append(clip.frames)
                if len(batch) == batch_size:
                    self._take_in(batch)
                    done.position = place.number + 1
                    save(done)
                if place.last:
                    self._finished(None)
        if batch:
            self._take_in(batch)

    def encode(self, clips: Sequence[UInt8[np.ndarray, "f H W 3"]]) -> Float[Tensor, "b c f h w"]:
        """Encode clips to model latents."""
        return self.to_latents(to_unit(torch.from_numpy(np.stack(clips)).to(self.device)))

    def empty(self, latents: Float[Tensor, "b c f h w"]) -> LatentMoments:
        """Return the moments of nothing, for such latents. Raises ValueError if `beside` is of other latents."""
        moments = LatentMoments.empty(latents.shape[1:], self.meta)
        if self.beside is not None:
            moments.merge(self.beside.moments)
        return moments

    def _take_in(self, batch: list[UInt8[np.ndarray, "f H W 3"]]) -> None:
        latents = self.encode(batch)
        self.done.moments = (self.done.moments or self.empty(latents)).update(latents)
        batch.clear()

    def _requests(self) -> Iterator[ClipRequest]:
        for place in self.places:
            if place.number < self.begun:
                if place.last and place.path not in self.done.skipped:
                    self._finished(None)
            elif place.path not in self.done.skipped:
                self.asked.append(place)
                yield replace(self.clip, path=place.path, place=place.share, first=place.first)

    def _finished(self, reason: str | None) -> None:
        """Say that a video is done, or why it is left out."""
        if self.on_video is not None:
            self.on_video(reason)


class _Saver:
    """Saves the progress of a run to a file, if there is one, every so many seconds."""

    def __init__(self, file: Path | None, settings: dict[str, Any], every: float):
        self.file, self.settings, self.every, self.saved = file, settings, every, time.monotonic()

    def __call__(self, done: Progress) -> None:
        if self.file is not None and time.monotonic() - self.saved >= self.every:
            done.save(self.file, self.settings)
            self.saved = time.monotonic()


def _plan(videos: Sequence[Path], clips_per_video: int, max_clips: int | None, seed: int) -> list[tuple[Path, int]]:
    """Return the videos of a run in its order, each with the number of its clips."""
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
    """Yield the clips of each video of `plan`, as many as it says, in the order of their time."""
    number = count()
    for path, clips in plan:
        draws = _draws(seed, "start", path)
        for k, share in enumerate(sorted(draws.random() for _ in range(clips))):
            yield _Place(next(number), path, share, k == 0, k == clips - 1)


def _draws(seed: int, purpose: str, path: Path) -> random.Random:
    return random.Random(sha256(f"{seed}/{purpose}/{path.name}".encode(errors="surrogateescape")).digest())
