"""From a recipe's `data:` to batches: the clips of videos, and which clips belong to which step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Sampler

from unleak.data.decode_worker import ClipReader, ClipRequest, Decoding
from unleak.data.image import MediaError
from unleak.data.sources import VideoEntry, folder_videos, listed_videos, webvid_videos
from unleak.data.synthetic import MotionRange, SyntheticClips
from unleak.data.video import VideoHeader, video_header
from unleak.train.config import FolderData, ListData, SyntheticData, WebVidData
from unleak.train.draws import clip_at, generator

VideoData = FolderData | ListData | WebVidData

_ATTEMPTS = 20  # a set of which this many random videos in a row cannot be read is no set of videos


@runtime_checkable
class Dataset(Protocol):
    """Clips by number, the same whenever they are asked for."""

    @property
    def groups(self) -> Sequence[Sequence[int]] | None:
        """Return the clips of each shape, or None if all clips have one shape."""

    @property
    def failures(self) -> Mapping[Path, str]:
        """Return the videos that are left out, with the reasons."""

    @property
    def missing(self) -> int:
        """Return how many videos a table names that are not there."""

    @property
    def entries(self) -> Sequence[VideoEntry]:
        """Return the files that clips are made of, as far as a cache depends on them."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a clip: `video`, uint8 [f 3 H W], `fps`, `motion_bucket_id`, and what else is known of it."""

    def caption(self, clip: int) -> str:
        """Return what is seen in a clip; empty if nobody says."""

    def name(self, clip: int) -> str:
        """Return what people know a clip by."""

    def close(self) -> None:
        """End the processes that decode."""


class MovingPhotos(SyntheticClips):
    """Procedural clips of photos as a `Dataset`."""

    groups = None
    missing = 0
    failures: Mapping[Path, str] = {}
    entries: Sequence[VideoEntry] = ()

    def caption(self, clip: int) -> str:
        """Return nothing: nobody describes the photos."""
        del clip
        return ""

    def name(self, clip: int) -> str:
        """Return the clip's number."""
        return f"clip {clip}"

    def close(self) -> None:
        """Do nothing: no process was started."""


def open_dataset(config: SyntheticData | VideoData) -> Dataset:
    """Return the dataset that a recipe asks for."""
    if isinstance(config, SyntheticData):
        law: dict[str, Any] = config.motion
        return MovingPhotos(
            config.photos,
            size=config.size,
            num_frames=config.num_frames,
            seed=config.seed,
            length=config.length,
            motion=MotionRange(**law),
            fps=config.fps,
            motion_bucket_id=config.motion_bucket_id,
        )
    return VideoClips(config)


def entries_of(config: VideoData) -> tuple[list[VideoEntry], int]:
    """Return the videos that a recipe names, and how many more it names that are not there."""
    match config:
        case FolderData():
            return folder_videos(config.path), 0
        case ListData():
            return listed_videos(config.path, allow_outside=config.allow_outside), 0
        case WebVidData():
            return webvid_videos(config.path, config.videos)


class VideoClips:
    """`clips_per_video` clips of every video that is long enough; where they begin and all else about them is keyed by
    (seed, video, clip).

    `failures` maps the videos left out by their header to their reasons; MediaError if they exceed the share
    `max_failures`. A video that turns out damaged further in is named in the item's `failures`, and a clip of another
    video, keyed by (seed, clip), takes its place: `clip` says which. A list that states durations is believed, and its
    videos are not opened beforehand.
    """

    def __init__(self, config: VideoData):
        self.config = config
        found, self.missing = entries_of(config)
        self.failures: dict[Path, str] = {}
        self.entries: list[VideoEntry] = []
        self.rates: list[float] = []
        members: list[list[int]] = [[] for _ in self.shapes]
        with ThreadPoolExecutor(8, thread_name_prefix="headers") as threads:
            headers = threads.map(self._header, found)
            for entry, header in zip(found, headers, strict=True):
                if isinstance(header, str):
                    self.failures[entry.path] = header
                    continue
                if reason := self._too_short(entry, header):
                    self.failures[entry.path] = reason
                    continue
                video = len(self.entries)
                self.entries.append(VideoEntry(entry.path, entry.caption, header.duration))
                self.rates.append(header.fps)
                if config.buckets:
                    each = config.clips_per_video
                    members[self._bucket(header)] += range(video * each, (video + 1) * each)
        self.groups = [group for group in members if group] if config.buckets else None
        self.bucket = {clip: k for k, group in enumerate(members) for clip in group} if config.buckets else {}
        self.reader: ClipReader | None = None
        if not self.entries or len(self.failures) > config.max_failures * len(found):
            raise MediaError(
                f"{config.path}: {len(self.failures)} of {len(found)} videos cannot be used, more than the share "
                f"max_failures = {config.max_failures:g} allows; the first: {next(iter(self.failures.values()))}"
            )

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(height, width, frames) of the clips: of each bucket, or the one."""
        return self.config.buckets or [(*self.config.size, self.config.num_frames)]

    def __len__(self) -> int:
        return len(self.entries) * self.config.clips_per_video

    def caption(self, clip: int) -> str:
        """Return the caption of a clip."""
        return self.entries[clip // self.config.clips_per_video].caption

    def name(self, clip: int) -> str:
        """Return the file of a clip's video."""
        return str(self.entries[clip // self.config.clips_per_video].path)

    def __getitem__(self, index: int) -> dict[str, Any]:
        failures: list[tuple[str, str]] = []
        g = generator(self.config.seed, "instead", index)
        clip = index
        for _ in range(_ATTEMPTS):
            request, flipped, frame = self._drawn(clip)
            outcome = self._read(request)
            if outcome is None or isinstance(outcome, MediaError):
                failures.append((str(request.path), str(outcome)))
                alike = self._alike(index)
                clip = alike[int(torch.randint(len(alike), (1,), generator=g))]
                continue
            video = torch.from_numpy(outcome.frames)
            return {
                "video": video.flip(2) if flipped else video,
                "condition_frame": frame,
                "fps": outcome.fps,
                "stride": request.stride if self.config.stride else 1,
                "motion_bucket_id": self.config.motion_bucket_id,
                "clip": clip,
                "failures": failures,
            }
        raise MediaError(f"{self.config.path}: {_ATTEMPTS} videos in a row cannot be read; the last: {failures[-1][1]}")

    def _alike(self, index: int) -> Sequence[int]:
        """Return the clips of the same shape."""
        if self.groups is None:
            return range(len(self))
        return next(group for group in self.groups if self.bucket[group[0]] == self.bucket[index])

    def _drawn(self, clip: int) -> tuple[ClipRequest, bool, int]:
        config = self.config
        video, k = divmod(clip, config.clips_per_video)
        parts = (video, k) if k else (video,)
        height, width, frames = self.shapes[self.bucket.get(clip, 0)]
        place = float(torch.rand((), generator=generator(config.seed, "start", *parts)))
        low, high = config.stride or (1, 1)
        stride = int(torch.randint(low, high + 1, (), generator=generator(config.seed, "stride", *parts)))
        if config.stride and self.rates[video]:  # half a frame is forgiven: durations are rounded
            there = (self.entries[video].duration or math.inf) * self.rates[video] + 0.5
            stride = max(1, int(min(stride, there // frames)))
        flipped = config.flip and bool(torch.rand((), generator=generator(config.seed, "flip", *parts)) < 0.5)
        frame = 0
        if config.condition_frame == "random":
            frame = int(torch.randint(frames, (), generator=generator(config.seed, "frame", *parts)))
        path = self.entries[video].path
        request = ClipRequest(path, frames, config.fps, (height, width), place, stride=stride)
        return request, flipped, frame

    def close(self) -> None:
        """End the process that decodes, if one was started."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def _read(self, request: ClipRequest) -> Any:
        if not request.path.is_file():  # opening a pipe would wait for its other end
            return MediaError(f"{request.path}: no such file, or a pipe or device")
        if self.reader is None:  # here, so that every worker of a loader has its own
            self.reader = ClipReader(Decoding(workers=1, seconds=self.config.seconds))
        return self.reader.read(request)

    def _header(self, entry: VideoEntry) -> VideoHeader | str:
        """Return what the file's header says, or why the video cannot be used."""
        if entry.fault is not None:
            return entry.fault
        if entry.duration is not None and self.config.fps and not self.config.buckets:
            return VideoHeader(entry.duration, 0.0, 0, 0)
        if not entry.path.is_file():
            there = entry.path.exists()
            return f"{entry.path}: {'a pipe or device; give the file of a video' if there else 'no such file'}"
        try:
            return video_header(entry.path)
        except (MediaError, OSError) as error:
            return str(error)

    def _too_short(self, entry: VideoEntry, header: VideoHeader) -> str | None:
        frames = self.shapes[self._bucket(header)][2]
        if header.duration is None:
            return None
        # By strides, at least every frame is needed.
        needed = frames / self.config.fps if self.config.fps else (frames - 0.5) / (header.fps or math.inf)
        if header.duration >= needed:
            return None
        return f"{entry.path}: {header.duration:.1f} s long, {needed:.1f} s needed"

    def _bucket(self, header: VideoHeader) -> int:
        """Choose the bucket nearest in shape, then the longest that the video fills, then the largest."""
        if not self.config.buckets:
            return 0
        shape = math.log(max(header.height, 1) / max(header.width, 1))
        rate = self.config.fps or header.fps or 1.0
        there = math.inf if header.duration is None else header.duration * rate + 0.5

        def cost(k: int) -> tuple[bool, float, int, int]:
            height, width, frames = self.shapes[k]
            return frames > there, round(abs(math.log(height / width) - shape), 3), -frames, -height * width

        return min(range(len(self.shapes)), key=cost)


class Order:
    """Which clip stands at each position of a run. Every epoch is a permutation of its own.

    With `groups` (clips of one shape) each step's `batch_size` clips are of one group: a group's last batch of an epoch
    is filled with clips from its beginning.
    """

    def __init__(self, *, seed: int, length: int, batch_size: int, groups: Sequence[Sequence[int]] | None = None):
        self.seed, self.length, self.batch_size, self.groups = seed, length, batch_size, groups
        self.per_epoch = length / batch_size if groups is None else sum(math.ceil(len(g) / batch_size) for g in groups)
        self._epoch = lru_cache(maxsize=2)(self._batches)

    def clip(self, position: int) -> int:
        """Return the clip at `position`."""
        if self.groups is None:
            return clip_at(position, seed=self.seed, length=self.length)
        step, offset = divmod(position, self.batch_size)
        epoch, batch = divmod(step, int(self.per_epoch))
        return self._epoch(epoch)[batch][offset]

    def _batches(self, epoch: int) -> list[list[int]]:
        assert self.groups is not None
        size, batches = self.batch_size, list[list[int]]()
        for k, group in enumerate(self.groups):
            order = torch.randperm(len(group), generator=generator(self.seed, "order", epoch, k)).tolist()
            whole = math.ceil(len(group) / size) * size
            clips = [group[order[i % len(group)]] for i in range(whole)]
            batches += [clips[i : i + size] for i in range(0, whole, size)]
        mixed = torch.randperm(len(batches), generator=generator(self.seed, "batches", epoch)).tolist()
        return [batches[i] for i in mixed]


class StepSampler(Sampler[list[int]]):
    """The clips of this process, batch by batch, as a function of the step alone: resuming needs no state.

    Step n uses the positions n * batch_size ... of the run, cut into `pieces` (processes times accumulation).
    """

    def __init__(self, order: Order, *, steps: range, accumulation: int, processes: int, rank: int):
        self.order, self.steps = order, steps
        self.accumulation, self.processes, self.rank = accumulation, processes, rank

    def positions(self, step: int, piece: int) -> range:
        """Return the positions in the run of this process's clips in accumulation piece `piece` of `step`."""
        size = self.order.batch_size // (self.accumulation * self.processes)
        start = step * self.order.batch_size + (piece * self.processes + self.rank) * size
        return range(start, start + size)

    def clips(self, step: int, piece: int) -> list[int]:
        """Return the clips at these positions."""
        return [self.order.clip(position) for position in self.positions(step, piece)]

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for piece in range(self.accumulation):
                yield self.clips(step, piece)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation


def batches(dataset: Any, sampler: StepSampler, *, workers: int) -> Iterator[dict[str, Any]]:
    """Yield batches in the sampler's order."""
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        # Its own generator: the loader would otherwise draw its workers' seed from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of clips: tensors and numbers are stacked, `clip` and `failures` are lists."""
    tensors = [name for name, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch: dict[str, Any] = {name: torch.stack([item[name] for item in items]) for name in tensors}
    for name in ("fps", "motion_bucket_id"):
        batch[name] = torch.tensor([float(item[name]) for item in items])
    batch["stride"] = torch.tensor([float(item.get("stride", 1)) for item in items])
    batch["condition_frame"] = [int(item.get("condition_frame", 0)) for item in items]
    batch["clip"] = [item.get("clip") for item in items]
    batch["failures"] = [failure for item in items for failure in item.get("failures", ())]
    return batch
