"""From a recipe's `data:` to batches: which clips belong to which step, and the cache in front of them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from unleak.train.config import FolderData, SyntheticData
from unleak.train.draws import clip_at


def open_dataset(config: SyntheticData | FolderData) -> Any:
    """The map-style dataset a recipe asks for."""
    if isinstance(config, SyntheticData):
        from unleak.data.synthetic import MotionRange, SyntheticClips

        return SyntheticClips(
            config.photos,
            size=config.size,
            num_frames=config.num_frames,
            seed=config.seed,
            length=config.length,
            motion=MotionRange(**config.motion),
            fps=config.fps,
            motion_bucket_id=config.motion_bucket_id,
        )
    raise NotImplementedError(config.kind)


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
