"""Checkpoints that are whole or absent: written under a temporary name, flushed to the disk, then renamed."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = re.compile(r"step-(\d{8})")
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run is at `step`: random numbers and data order are functions of the step, so they need no state."""

    step: int
    recipe: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None = None
    readout: dict[str, Tensor] | None = None


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write `folder`/step-NNNNNNNN and remove all but the `keep` newest."""
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_contiguous(checkpoint.model), partial / "model.safetensors")
    save_file(_contiguous(checkpoint.ema), partial / "ema.safetensors")
    training = {name: getattr(checkpoint, name) for name in ("optimizer", "scaler", "readout")}
    torch.save(training, partial / "optimizer.pt")
    (partial / "state.json").write_text(json.dumps({"step": checkpoint.step, "recipe": checkpoint.recipe}, indent=1))
    publish(partial, final)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def publish(partial: Path, final: Path) -> None:
    """Rename folder `partial` to `final` once its contents are on the disk; an older `final` is replaced."""
    for path in [*partial.rglob("*"), partial]:
        _flush(path)
    if final.exists():
        # A folder cannot be renamed over a full one: the old one steps aside first.
        aside = final.with_name(f"{_PARTIAL}old-{final.name}")
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
        partial.rename(final)
        shutil.rmtree(aside)
    else:
        partial.rename(final)
    _flush(final.parent)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, found by name."""
    return max(_all(folder), default=None)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; pickles are loaded `weights_only`."""
    state = json.loads((path / "state.json").read_text())
    training = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    return Checkpoint(
        state["step"],
        state["recipe"],
        load_file(path / "model.safetensors"),
        load_file(path / "ema.safetensors"),
        training["optimizer"],
        training["scaler"],
        training.get("readout"),
    )


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
