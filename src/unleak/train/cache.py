"""The latents of a whole dataset on disk, encoded once through the frozen VAE: float16, memory-mapped, resumable."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

from unleak.data.atomic import written_whole
from unleak.data.files import open_regular
from unleak.data.pixels import to_unit
from unleak.train.data import Dataset


class LatentCache:
    """Finished cache: items {"latents": float32 [c f h w], "image": uint8 [h w 3], "fps", "motion_bucket_id"}, where it
    is known "velocity" float32 [2], and of videos "condition_frame", "stride" and "clip".

    What else frozen networks made of a clip is there by its name.
    """

    def __init__(self, folder: Path):
        arrays = _arrays(folder)
        self.images, self.scalars = arrays.pop("first_frames"), arrays.pop("scalars")
        self.more, self.velocities = arrays.pop("more", None), arrays.pop("velocities", None)
        self.encoded = arrays

    def __len__(self) -> int:
        return len(self.scalars)

    def __getitem__(self, index: int) -> dict[str, Any]:
        fps, motion_bucket_id = self.scalars[index].tolist()
        item: dict[str, Any] = {
            name: torch.from_numpy(array[index].astype(np.float32)) for name, array in self.encoded.items()
        }
        item |= {
            "image": torch.from_numpy(self.images[index].copy()),
            "fps": fps,
            "motion_bucket_id": motion_bucket_id,
        }
        if self.more is not None:
            item |= zip(_MORE, self.more[index].tolist(), strict=True)
        if self.velocities is not None:
            item["velocity"] = torch.from_numpy(self.velocities[index].copy())
        return item


class GroupedCache:
    """Caches of groups of clips, each of its own shape, as one."""

    def __init__(self, groups: Sequence[Sequence[int]], caches: Sequence[LatentCache]):
        self.caches = caches
        self.place = {clip: (k, row) for k, group in enumerate(groups) for row, clip in enumerate(group)}

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: int) -> dict[str, Any]:
        k, row = self.place[index]
        return self.caches[k][row]


def cache_folder(data: Any, dataset: Dataset, vae: Any, *, latents: str = "mode") -> Path:
    """Return where the latents of a recipe's `data` are kept; with `latents` other than `mode` also their spread."""
    free = {"cache", "workers", "seconds", "max_failures"}
    described = data.model_dump(mode="json", exclude=free)
    if latents != "mode":
        described["latents"] = latents
    return data.cache / cache_key(described, dataset, vae)


def cache_key(described: dict[str, Any], dataset: Dataset, vae: Any) -> str:
    """Return a name that changes with everything that the latents depend on.

    That is the data's description, the names and sizes of the files, the first and last clip (so the code that makes
    them), and every bit of the VAE's encoder and its scaling."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for index in (0, len(dataset) - 1):
        item = dataset[index]
        digest.update(",".join(sorted(item)).encode())
        digest.update(item["video"].numpy().tobytes())
    for entry in dataset.entries:
        digest.update(f"{entry.path} {entry.path.stat().st_size}\n".encode(errors="surrogateescape"))
    scaling = [vae.config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std")]
    digest.update(" ".join(str(value) for value in scaling if value is not None).encode())
    encoder = {name: t for name, t in vae.state_dict().items() if not name.startswith("decoder.")}
    for name, tensor in sorted(encoder.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def build_cache(
    folder: Path,
    dataset: Dataset,
    encode: Callable[[Float[Tensor, "b f 3 H W"]], Any],
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
    failed: Callable[[list[tuple[str, str]]], None] | None = None,
) -> LatentCache | GroupedCache:
    """Encode `dataset` into `folder`, or go on where a stopped run left it, and open it.

    `encode` maps videos in [-1, 1] to model latents, or to a dictionary of tensors, `latents` among them. `progress` is
    called with (clips done, clips in all), `failed` with the videos that could not be read and the reasons.
    """
    groups = dataset.groups
    parts: list[tuple[Path, Sequence[int]]] = [(folder, range(len(dataset)))]
    if groups is not None:
        parts = [(folder / f"group-{k}", group) for k, group in enumerate(groups)]
    folder.mkdir(parents=True, exist_ok=True)
    before, total = 0, sum(len(clips) for _, clips in parts)
    with FileLock(folder / ".lock"):  # two runs may share a cache: the second waits for what the first makes
        for part, clips in parts:
            # Of all groups together: a count that begins anew with each says nothing of how far the work is.
            within = None if progress is None else partial(_count, progress, before, total)
            _fill(part, dataset, clips, encode, batch, within, failed)
            before += len(clips)
    caches = [LatentCache(part) for part, _ in parts]
    return caches[0] if groups is None else GroupedCache(groups, caches)


def check_cache(
    folder: Path, cache: LatentCache | GroupedCache, dataset: Dataset, encode: Callable[[Tensor], Any]
) -> None:
    """Compare the first clip of a cache with what it is encoded to now. Raises ValueError if the shapes differ."""
    encoded, kept = encode(to_unit(dataset[0]["video"][None])), cache[0]
    for name, tensor in (encoded if isinstance(encoded, dict) else {"latents": encoded}).items():
        if name not in kept or kept[name].shape != tensor.shape[1:]:
            found = list(kept[name].shape) if name in kept else "none"
            raise ValueError(
                f"{folder} is damaged: {name} of a clip have the shape {list(tensor.shape[1:])}, those in the cache"
                f" {found}; delete it to have it encoded again"
            )


_MORE = ("condition_frame", "stride", "clip")


def _fill(
    folder: Path,
    dataset: Dataset,
    clips: Sequence[int],
    encode: Callable[[Tensor], Any],
    batch: int,
    progress: Callable[[int, int], None] | None,
    failed: Callable[[list[tuple[str, str]]], None] | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    total, counter = len(clips), folder / "done.json"
    done = _done(folder, total)
    while done < total:
        items = [dataset[clips[i]] for i in range(done, min(done + batch, total))]
        if failed:
            failed([failure for item in items for failure in item.get("failures", ())])
        video = torch.stack([item["video"] for item in items])
        encoded = encode(to_unit(video))
        encoded = encoded if isinstance(encoded, dict) else {"latents": encoded}
        frame = torch.tensor([item.get("condition_frame", 0) for item in items])
        columns = {name: tensor.to(torch.float16).cpu().numpy() for name, tensor in encoded.items()}
        columns["first_frames"] = video[torch.arange(len(video)), frame].numpy()
        columns["scalars"] = np.array([[item["fps"], item["motion_bucket_id"]] for item in items], dtype=np.float32)
        if "clip" in items[0]:
            columns["more"] = np.array([[item[name] for name in _MORE] for item in items], dtype=np.int64)
        if "velocity" in items[0]:
            columns["velocities"] = np.stack([item["velocity"].numpy() for item in items])
        for name, rows in columns.items():
            _write_rows(folder / f"{name}.npy", rows, done, total)
        done += len(items)
        # The rows are on the disk before they are counted, and the count replaces the old one in one move.
        with written_whole(counter) as temporary:
            temporary.write_text(json.dumps(done))
        if progress:
            progress(done, total)


def _count(progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _done(folder: Path, total: int) -> int:
    """Read how many of `total` clips are encoded. Raises ValueError if that is not what the file says."""
    counter = folder / "done.json"
    if not counter.exists():
        return 0
    with open_regular(counter) as file:
        text = file.read(20)
    if not text.isdigit() or int(text) > total:
        raise ValueError(f"{counter} is damaged: it should say how many of {total} clips are encoded; delete {folder}")
    return int(text)


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Map the files of a finished cache into memory. Raises ValueError for what `build_cache` did not write."""
    arrays = dict[str, np.ndarray]()
    for path in sorted(folder.glob("*.npy")):
        try:
            open_regular(path).close()  # a pipe would be waited for
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("an archive of arrays")
            arrays[path.stem] = array
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is damaged; delete {folder} to have it encoded again") from error
    kinds = {name: (array.dtype.kind, array.ndim) for name, array in arrays.items()}
    if kinds.get("first_frames") != ("u", 4) or kinds.get("scalars") != ("f", 2):
        raise ValueError(f"{folder} is not a latent cache; delete it to have it encoded again")
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"{folder} is damaged: its files have {rows} rows; delete it to have it encoded again")
    return arrays


def _write_rows(path: Path, rows: np.ndarray, start: int, total: int) -> None:
    # Not through a memory map, where a full disk ends the process without a word (SIGBUS).
    header = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False}
    try:
        with path.open("r+b" if start else "wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (total, *rows.shape[1:])})
            file.seek(start * rows[0].nbytes, os.SEEK_CUR)
            file.write(np.ascontiguousarray(rows).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
