"""Checkpoints that are whole or absent, hold no pickle, and are compared with the network before they are read.

A checkpoint is a folder step-NNNNNNNN: `state.json` and safetensors files, written by torch.distributed.checkpoint. A
run with its weights in parts and one with whole weights write the same files and read each other's.
"""

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unleak.core.moments import DAMAGED
from unleak.data.files import open_regular
from unleak.train.together import together

__all__ = ["Stored", "compare", "latest", "load", "newest", "published", "read", "save", "sweep"]

_NAME = re.compile(r"step-(\d{8})")
_PARTIAL = ".partial-"
_FILE_BYTES = 2**30  # a file is put together in memory before it is written, so that large networks need several
_STATE_BYTES = 2**20
_LEGACY = "optimizer.pt"  # a file of checkpoints that earlier versions wrote


class _State(BaseModel):
    """The contents of `state.json`."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    step: int = Field(ge=0, lt=10**8)
    recipe: dict[str, Any]
    scaler: dict[str, float] | None = None


@dataclass(frozen=True)
class Stored:
    """A checkpoint on the disk, of which only the headers have been read.

    Random numbers and the order of the data are functions of the step, so they need no state of their own.
    """

    path: Path
    step: int
    recipe: dict[str, Any]
    scaler: dict[str, float] | None
    """What float16's loss scaling keeps."""
    legacy: Mapping[str, Tensor] | None = None
    """The tensors of a checkpoint that an earlier version wrote, which are read at once."""
    unnamed: Mapping[int, Mapping[str, Any]] | None = None
    """What the optimizer kept of each weight in such a checkpoint, by the weight's place in the optimizer."""

    def named(self, weights: Sequence[str]) -> "Stored":
        """Return the same with names for what is `unnamed`; `weights` are in the optimizer's order.

        Raises ValueError if what an optimizer keeps is not a dictionary of tensors and numbers.
        """
        if self.legacy is None or self.unnamed is None:
            return self
        try:
            slots = {
                f"optimizer/{name}/{slot}": torch.as_tensor(value)
                for name, kept in zip(weights, self.unnamed.values(), strict=False)
                for slot, value in kept.items()
            }
        except DAMAGED as error:
            raise ValueError(f"{self.path / _LEGACY} is damaged ({_reason(error)})") from error
        return replace(self, legacy={**self.legacy, **slots}, unnamed=None)


# Writing


def save(
    folder: Path,
    step: int,
    recipe: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    scaler: Mapping[str, float] | None = None,
    keep: int,
    alone: bool = True,
) -> Path:
    """Write `folder`/step-NNNNNNNN, remove all but the `keep` newest checkpoints, and return the new one.

    With `alone` false every process of the default group has to call this, and each writes its own part of the tensors.
    Raises OSError, the same in all processes, where the disk is full; there is no new checkpoint then.
    """
    import torch.distributed as dist

    final, main = folder / f"step-{step:08d}", alone or dist.get_rank() == 0
    partial = final.with_name(f"{_PARTIAL}{final.name}")
    agreed = ExitStack if alone else together
    with agreed(), ExitStack() as made:
        with agreed():
            if main:
                made.enter_context(published(final))
        if alone:
            _save_files(partial, tensors)
        else:
            _save_parts(partial, tensors, final)
        with agreed():
            if main:
                state = {"step": step, "recipe": dict(recipe), "scaler": scaler}
                (partial / "state.json").write_text(json.dumps(state, indent=1))
    if main:
        for old in _all(folder)[:-keep]:
            shutil.rmtree(old)
    return final


@contextmanager
def published(final: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `final` at the end of the block, once its contents are on the disk.

    If the block raises (a full disk, Ctrl-C), the folder is removed and what stood at `final` is untouched. Raises
    OSError that names `final` where the disk is full.
    """
    partial, aside = (final.with_name(f"{_PARTIAL}{old}{final.name}") for old in ("", "old-"))
    if aside.exists() and not final.exists():  # an earlier run was killed between two renames
        aside.rename(final)
    for leftover in (partial, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _flush(path)
        if final.exists():  # a folder cannot be renamed over a full one: the old one steps aside
            final.rename(aside)
        partial.rename(final)
        _flush(final.parent)
    except BaseException as error:
        if aside.exists() and not final.exists():
            aside.rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        number = error.errno if isinstance(error, OSError) else _number(error)
        if number is None:
            raise
        reason = error.strerror if isinstance(error, OSError) else os.strerror(number)
        raise OSError(number, reason, str(final)) from error
    shutil.rmtree(aside, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, found by name, or None."""
    return max(_all(folder), default=None)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)


# Reading


def newest(folder: Path) -> Stored | None:
    """Read the headers of the newest checkpoint in `folder`, or return None if there is none.

    Raises ValueError that names the damaged file and the newest checkpoint that is good.
    """
    found = latest(folder)
    if found is None:
        return None
    try:
        return read(found)
    except ValueError as error:
        raise ValueError(f"{error}; {_advice(found, None)}") from error


def read(path: Path) -> Stored:
    """Read the headers of one checkpoint. Raises ValueError in one line for one that is damaged."""
    file = path / "state.json"
    try:
        with open_regular(file) as opened:
            content = opened.read(_STATE_BYTES + 1)
        if len(content) > _STATE_BYTES:
            raise ValueError("it has more than 1 MiB")
        state = _State.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file} is damaged ({where}{': ' if where else ''}{first['msg'].lower()})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({_reason(error)})") from error
    if (named := _NAME.fullmatch(path.name)) and int(named[1]) != state.step:
        raise ValueError(f"{file} says step {state.step}, the folder step {int(named[1])}")
    if (path / ".metadata").exists():
        raise ValueError(
            f"{path / '.metadata'} is a pickle, which may run code, and is not read; if an earlier unleak wrote this"
            " checkpoint in parts, export its model with that unleak (--export FOLDER) and train on from there"
        )
    if (path / _LEGACY).exists():
        return _read_legacy(path, state)
    _headers(path)
    return Stored(path, state.step, state.recipe, state.scaler)


def compare(stored: Stored, expected: Mapping[str, Tensor]) -> None:
    """Compare a checkpoint with the tensors that are to be filled from it; nothing of theirs is read yet.

    For each kind of tensor in `expected` (what stands before the first slash of a name), the checkpoint must have the
    same names, shapes and types. Raises ValueError that names the file, the tensor and the newest checkpoint that
    is good.
    """
    if fault := _fault(stored, expected):
        raise ValueError(f"{fault}; {_advice(stored.path, expected)}")


@torch.no_grad()
def load(stored: Stored, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors`, whole or this process's parts, from a checkpoint that was compared with them."""
    dcp = _sharded()

    if stored.legacy is not None:
        for name, tensor in tensors.items():
            tensor.copy_(stored.legacy[name])
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
            dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(stored.path)), no_dist=True)
    except (OSError, SafetensorError, *DAMAGED, dcp.api.CheckpointException) as error:
        raise ValueError(f"{stored.path} is damaged ({_reason(error)}); {_advice(stored.path, tensors)}") from error


def _fault(stored: Stored, expected: Mapping[str, Tensor]) -> str | None:
    """Say in what a checkpoint differs from `expected`, or return None."""
    kinds = {name.split("/")[0] for name in expected}
    if stored.legacy is not None:
        there = {n: (stored.path, tuple(t.shape), t.dtype) for n, t in stored.legacy.items()}
    else:
        there = _headers(stored.path)
    there = {name: found for name, found in there.items() if name.split("/")[0] in kinds}
    for name, tensor in expected.items():
        if name not in there:
            return f"{stored.path} has no tensor {name}, which the network has"
        file, shape, dtype = there[name]
        if shape != tuple(tensor.shape):
            return f"{file}: {name} has the shape {list(shape)}, the network's has {list(tensor.shape)}"
        if dtype != tensor.dtype:
            return f"{file}: {name} is of {dtype}, the network's is of {tensor.dtype}"
    for name in there.keys() - expected.keys():
        return f"{there[name][0]}: {name} is a tensor that the network does not have"
    return None


def _headers(path: Path) -> dict[str, tuple[Path, tuple[int, ...], torch.dtype]]:
    """Return for every tensor one of its files, its shape and its type. Raises ValueError if a part is missing."""
    dcp = _sharded()

    try:
        for file in path.glob("*.safetensors"):
            open_regular(file).close()  # a pipe would be waited for
        metadata = dcp.HuggingFaceStorageReader(str(path)).read_metadata()
        if not metadata.state_dict_metadata:
            raise ValueError("it holds no tensors")
        files = {index.fqn: Path(info.relative_path) for index, info in metadata.storage_data.items()}
        found = {}
        for name, about in metadata.state_dict_metadata.items():
            size = tuple(about.size)
            parts = [(tuple(part.offsets), tuple(part.sizes)) for part in about.chunks]
            if any(type(n) is not int or n < 0 for offsets, _ in parts for n in offsets):
                raise ValueError(f"{files[name].name}: {name}: an offset that is not a number from 0 on")
            if len({offsets for offsets, _ in parts}) != len(parts) or sum(prod(s) for _, s in parts) != prod(size):
                raise ValueError(f"{files[name].name}: of {name} some parts are missing or there twice")
            found[name] = (files[name], size, about.properties.dtype)
    except (OSError, SafetensorError, *DAMAGED) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)})") from error
    return found


def _read_legacy(path: Path, state: _State) -> Stored:
    """Read a checkpoint that an earlier version wrote."""
    file = path
    try:
        tensors = dict[str, Tensor]()
        for kind in ("model", "ema"):
            file = path / f"{kind}.safetensors"
            open_regular(file).close()
            tensors |= {f"{kind}/{name}": tensor for name, tensor in load_file(file).items()}
        file = path / _LEGACY
        open_regular(file).close()
        training = torch.load(file, map_location="cpu", weights_only=True)
        tensors |= {f"readout/{name}": tensor for name, tensor in (training["readout"] or {}).items()}
        unnamed = dict(training["optimizer"]["state"])
        if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise ValueError("what should be a tensor is none")
        return Stored(path, state.step, state.recipe, training["scaler"], tensors, unnamed)
    except (OSError, SafetensorError, *DAMAGED) as error:
        raise ValueError(f"{file} is damaged ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:200]


def _advice(bad: Path, expected: Mapping[str, Tensor] | None) -> str:
    """Say which checkpoint to go on from when `bad` is not good."""
    for path in reversed([path for path in _all(bad.parent) if path != bad]):
        try:
            stored = read(path)
        except ValueError:
            continue
        if expected is None or _fault(stored, expected) is None:
            return f"move {bad.name} away to go on from {path.name}, the newest good checkpoint"
    return "no other checkpoint is good: choose another output to begin again"


# The file system


def _save_files(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write whole tensors, as the reader of parts expects a single one."""
    files = _files(tensors)
    for number in range(1, max(files.values()) + 1):
        some = {name: tensors[name].detach().cpu().contiguous() for name in tensors if files[name] == number}
        save_file(some, folder / f"tensors-{number:05d}.safetensors")


def _save_parts(folder: Path, tensors: Mapping[str, Tensor], final: Path) -> None:
    """Write this process's parts of the tensors, while all others write theirs."""
    dcp = _sharded()

    writer = dcp.HuggingFaceStorageWriter(str(folder), _files(tensors), save_distributed=True)
    try:
        dcp.save({n: t.detach().contiguous() for n, t in tensors.items()}, storage_writer=writer)
    except dcp.api.CheckpointException as error:  # raised in all processes
        raise _of_one(error, final) from None


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Assign each tensor to a file, from 1 on; the same in every process."""
    files, filled, number = dict[str, int](), 0, 1
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if filled and filled + size > _FILE_BYTES:
            filled, number = 0, number + 1
        filled += size
        files[name] = number
    return files


def _sharded() -> Any:
    """Return torch.distributed.checkpoint, which is imported late: most runs are whole and the module is large.

    Of its readers only that of safetensors is used: the others unpickle.
    """
    import torch.distributed.checkpoint

    return torch.distributed.checkpoint


def _of_one(error: Any, final: Path) -> OSError:
    """Return what the first process that failed could not do."""
    cause, _ = error.failures[min(error.failures)]
    if isinstance(cause, OSError) and cause.errno:
        return OSError(cause.errno, os.strerror(cause.errno), str(final))
    return OSError(errno.EIO, " ".join(str(cause).split())[:200], str(final))


def _number(error: BaseException) -> int | None:
    """Return the number of the system's error that a library reports in words only, or None.

    safetensors says `os error 28`; a pipeline that saves itself may write by torch, which says what failed but not why.
    """
    found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    if isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error):
        return errno.ENOSPC
    return int(found[1]) if found else None


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if _NAME.fullmatch(p.name))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
