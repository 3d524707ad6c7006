"""The latents of a whole dataset on disk, encoded once through the frozen VAE: float16, memory-mapped, resumable."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unleak.data.pixels import to_unit


class LatentCache:
    """Finished cache: items {"latents": float32 [c f h w], "first_frame": uint8 [h w 3], "fps", "motion_bucket_id"},
    and "velocity" float32 [2] where it is known."""

    def __init__(self, folder: Path):
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.first_frames = np.load(folder / "first_frames.npy", mmap_mode="r")
        self.scalars = np.load(folder / "scalars.npy", mmap_mode="r")
        velocities = folder / "velocities.npy"
        self.velocities = np.load(velocities, mmap_mode="r") if velocities.exists() else None

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, Any]:
        fps, motion_bucket_id = self.scalars[index].tolist()
        item = {
            "latents": torch.from_numpy(self.latents[index].astype(np.float32)),
            "first_frame": torch.from_numpy(self.first_frames[index].copy()),
            "fps": fps,
            "motion_bucket_id": motion_bucket_id,
        }
        if self.velocities is not None:
            item["velocity"] = torch.from_numpy(self.velocities[index].copy())
        return item


def cache_folder(data: Any, dataset: Any, vae: Any) -> Path:
    """Where the latents of a recipe's `data` lie; `dataset` are its clips."""
    return data.cache / cache_key(data.model_dump(mode="json", exclude={"cache", "workers"}), dataset, vae)


def cache_key(described: dict[str, Any], dataset: Any, vae: Any) -> str:
    """A name that changes with the data's description, with the first and last clip (so with the files and the
    code that make them), and with every bit of the VAE's encoder and its scaling."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for index in (0, len(dataset) - 1):
        item = dataset[index]
        digest.update(",".join(sorted(item)).encode())
        digest.update(item["video"].numpy().tobytes())
    digest.update(str(vae.config.scaling_factor).encode())
    encoder = {name: t for name, t in vae.state_dict().items() if not name.startswith("decoder.")}
    for name, tensor in sorted(encoder.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def build_cache(
    folder: Path,
    dataset: Any,
    encode: Callable[[Float[Tensor, "b f 3 H W"]], Float[Tensor, "b c f h w"]],
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> LatentCache:
    """Encode `dataset` into `folder`, or go on where a stopped run left it, and open it.

    `encode` maps videos in [-1, 1] to model latents. `progress` is called with (clips done, clips in all).
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, counter = len(dataset), folder / "done.json"
    done = json.loads(counter.read_text()) if counter.exists() else 0
    while done < total:
        items = [dataset[i] for i in range(done, min(done + batch, total))]
        video = torch.stack([item["video"] for item in items])
        latents = encode(to_unit(video)).to(torch.float16).cpu().numpy()
        first_frames = video[:, 0].numpy()
        scalars = np.array([[item["fps"], item["motion_bucket_id"]] for item in items], dtype=np.float32)
        columns = {"latents": latents, "first_frames": first_frames, "scalars": scalars}
        if "velocity" in items[0]:
            columns["velocities"] = np.stack([item["velocity"].numpy() for item in items])
        for name, rows in columns.items():
            _write_rows(folder / f"{name}.npy", rows, done, total)
        done += len(items)
        # The rows are on the disk before they are counted, and the count replaces the old one in one move.
        (folder / "done.json.partial").write_text(json.dumps(done))
        os.replace(folder / "done.json.partial", counter)
        if progress:
            progress(done, total)
    return LatentCache(folder)


def _write_rows(path: Path, rows: np.ndarray, start: int, total: int) -> None:
    shape: Sequence[int] = (total, *rows.shape[1:])
    if start == 0:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=rows.dtype, shape=tuple(shape))
    else:
        array = np.lib.format.open_memmap(path, mode="r+")
    array[start : start + len(rows)] = rows
    array.flush()
