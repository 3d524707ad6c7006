"""From a recipe's `data:` to batches: the clips of a folder of videos, and which clips belong to which step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from unleak.data.folder import find_videos
from unleak.data.image import MediaError
from unleak.data.video import read_video, video_duration
from unleak.train.config import FolderData, SyntheticData
from unleak.train.draws import clip_at, generator


def open_dataset(config: SyntheticData | FolderData) -> Any:
    """The map-style dataset a recipe asks for."""
    if isinstance(config, SyntheticData):
        from unleak.data.synthetic import MotionRange, SyntheticClips

        law: dict[str, Any] = config.motion
        return SyntheticClips(
            config.photos,
            size=config.size,
            num_frames=config.num_frames,
            seed=config.seed,
            length=config.length,
            motion=MotionRange(**law),
            fps=config.fps,
            motion_bucket_id=config.motion_bucket_id,
        )
    return VideoFolder(config)


class VideoFolder:
    """One clip of every video of a folder that is long enough, starting at a place keyed by (seed, index).

    `failures` maps the others to their reasons. Raises MediaError if they exceed the share `max_failures`; a video that
    turns out damaged further in raises when its clip is read, and the message names it.
    """

    def __init__(self, config: FolderData):
        self.config = config
        self.failures: dict[Path, str] = {}
        self.starts: list[tuple[Path, float]] = []
        needed = config.num_frames / config.fps
        paths = find_videos([config.path])
        for path in paths:
            if not path.is_file():  # opening a pipe would wait for its other end
                self.failures[path] = f"{path}: a pipe or device; give the file of a video"
                continue
            try:
                duration = video_duration(path)
            except MediaError as error:
                self.failures[path] = str(error)
                continue
            if duration is not None and duration < needed:
                self.failures[path] = f"{path}: {duration:.1f} s long, {needed:.1f} s needed"
                continue
            place = torch.rand((), generator=generator(config.seed, "start", len(self.starts)))
            self.starts.append((path, float(place) * ((duration or needed) - needed)))
        if len(self.failures) > config.max_failures * len(paths):
            raise MediaError(
                f"{config.path}: {len(self.failures)} of {len(paths)} videos cannot be used, more than the share "
                f"max_failures = {config.max_failures:g} allows; the first: {next(iter(self.failures.values()))}"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, start = self.starts[index]
        config = self.config
        clip = read_video(path, num_frames=config.num_frames, fps=config.fps, start=start, size=config.size)
        return {
            "video": torch.from_numpy(clip.frames),
            "fps": config.fps,
            "motion_bucket_id": config.motion_bucket_id,
            "name": str(path),
        }


class StepSampler(Sampler[list[int]]):
    """The clips of this process, batch by batch, as a function of the step alone: resuming needs no state.

    Step n uses the positions n * batch_size ... of the run, cut into `pieces` (processes times accumulation).
    """

    def __init__(
        self, *, seed: int, length: int, steps: range, batch_size: int, accumulation: int, processes: int, rank: int
    ):
        self.seed, self.length, self.steps = seed, length, steps
        self.batch_size, self.accumulation, self.processes, self.rank = batch_size, accumulation, processes, rank

    def positions(self, step: int, piece: int) -> range:
        """Positions in the run of this process's clips in accumulation piece `piece` of `step`."""
        size = self.batch_size // (self.accumulation * self.processes)
        start = step * self.batch_size + (piece * self.processes + self.rank) * size
        return range(start, start + size)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for piece in range(self.accumulation):
                yield [clip_at(p, seed=self.seed, length=self.length) for p in self.positions(step, piece)]

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation


def batches(dataset: Any, sampler: StepSampler, *, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches in the sampler's order."""
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        # Its own generator: the loader would otherwise draw its workers' seed from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)


def _collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    tensors = [name for name, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch = {name: torch.stack([item[name] for item in items]) for name in tensors}
    for name in ("fps", "motion_bucket_id"):
        batch[name] = torch.tensor([float(item[name]) for item in items])
    return batch
