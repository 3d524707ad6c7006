"""Checkpoints that are whole or absent: written under a temporary name, flushed to the disk, then renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unleak.core.moments import DAMAGED
from unleak.train.together import together

_NAME = re.compile(r"step-(\d{8})")
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run is at `step`: random numbers and data order are functions of the step, so they need no state.

    `model` and `ema` are the trained weights.
    """

    step: int
    recipe: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None = None
    readout: dict[str, Tensor] | None = None
    parts: Path | None = None
    """Where the tensors are, if each process wrote its own part of them; the dictionaries are empty then."""

    @torch.no_grad()
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Write the model into `weights`; what else a checkpoint has is not trained, and as it was."""
        for name, weight in weights.items():
            weight.copy_(self.model[name])


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write `folder`/step-NNNNNNNN and remove all but the `keep` newest."""
    final = folder / f"step-{checkpoint.step:08d}"
    with published(final) as partial:
        save_file(_contiguous(checkpoint.model), partial / "model.safetensors")
        save_file(_contiguous(checkpoint.ema), partial / "ema.safetensors")
        training = {name: getattr(checkpoint, name) for name in ("optimizer", "scaler", "readout")}
        with (partial / "optimizer.pt").open("wb") as file:  # a file of Python's says why it cannot be written
            torch.save(training, file)
        state = {"step": checkpoint.step, "recipe": checkpoint.recipe}
        (partial / "state.json").write_text(json.dumps(state, indent=1))
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)
    return final


@contextmanager
def published(final: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `final` at the end of the block, once its contents are on the disk.

    If the block raises (a full disk, Ctrl-C), it is removed and what stood at `final` is untouched. Raises OSError,
    about `final`, where the disk is full.
    """
    partial, aside = (final.with_name(f"{_PARTIAL}{old}{final.name}") for old in ("", "old-"))
    if aside.exists() and not final.exists():  # killed between two renames
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


def _number(error: BaseException) -> int | None:
    """Of a safetensors error, that of the system's error in its words."""
    found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(found[1]) if found else None


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, found by name."""
    return max(_all(folder), default=None)


def save_parts(
    folder: Path,
    step: int,
    recipe: dict[str, Any],
    tensors: dict[str, Any],
    *,
    scaler: dict[str, Any] | None = None,
    keep: int,
) -> Path:
    """The same from weights in parts: called in every process of the default group, each writes its own.

    `tensors` has model, ema and optimizer (of each weight by name what the optimizer keeps). If one process cannot
    write its part, there is no checkpoint, and the same error in all of them.
    """
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    final, main = folder / f"step-{step:08d}", dist.get_rank() == 0
    partial = final.with_name(f"{_PARTIAL}{final.name}")
    with together(), ExitStack() as made:
        with together():
            if main:
                made.enter_context(published(final))
        try:
            dcp.state_dict_saver.save(tensors, checkpoint_id=partial)
        except dcp.api.CheckpointException as error:  # in all processes
            raise _of_one(error, final) from None
        with together():
            if main:
                state = {"step": step, "recipe": recipe, "scaler": scaler}
                (partial / "state.json").write_text(json.dumps(state, indent=1))
    if main:
        for old in _all(folder)[:-keep]:
            shutil.rmtree(old)
    return final


def _of_one(error: Any, final: Path) -> OSError:
    """What the first process that failed could not do."""
    cause, _ = error.failures[min(error.failures)]
    if isinstance(cause, OSError) and cause.errno:
        return OSError(cause.errno, os.strerror(cause.errno), str(final))
    return OSError(errno.EIO, " ".join(str(cause).split())[:200], str(final))


def load_parts(path: Path, tensors: dict[str, Any], *, alone: bool = False) -> None:
    """Read what `save_parts` wrote into `tensors`, cut as these are: every process of the default group has to call it,
    however many there are now, or one does, `alone`, for whole tensors."""
    import torch.distributed.checkpoint as dcp

    try:
        dcp.state_dict_loader.load(tensors, checkpoint_id=path, no_dist=alone)
    except (OSError, *DAMAGED, dcp.api.CheckpointException) as error:
        raise ValueError(_damaged(path, error)) from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; pickles are loaded `weights_only`. Raises ValueError if it is damaged."""
    try:
        state = json.loads((path / "state.json").read_text())
        if (path / ".metadata").exists():
            scaler = state.get("scaler")
            return Checkpoint(int(state["step"]), dict(state["recipe"]), {}, {}, {}, scaler, parts=path)
        training = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        return Checkpoint(
            int(state["step"]),
            dict(state["recipe"]),
            load_file(path / "model.safetensors"),
            load_file(path / "ema.safetensors"),
            dict(training["optimizer"]),
            training["scaler"],
            training.get("readout"),
        )
    except (OSError, SafetensorError, *DAMAGED) as error:
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split()).split(". ")[0][:200]
    return f"{path} is damaged ({reason}); move it away to go on from the one before"


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if _NAME.fullmatch(p.name))


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
