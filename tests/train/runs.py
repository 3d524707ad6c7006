"""What tests of training runs share: to read a run's newest checkpoint, and to compare two."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from unleak.train import checkpoint


@dataclass
class State:
    path: Path
    step: int
    scaler: dict | None
    model: dict = field(default_factory=dict)
    ema: dict = field(default_factory=dict)
    optimizer: dict = field(default_factory=dict)
    readout: dict = field(default_factory=dict)


def state(recipe):
    """The newest checkpoint of a run, each kind of tensors by name."""
    stored = checkpoint.newest(recipe.output / "checkpoints")
    found = State(stored.path, stored.step, stored.scaler)
    blank = {}
    for name, (_, shape, dtype) in checkpoint._headers(stored.path).items():
        blank[name] = torch.zeros(shape, dtype=dtype)
    checkpoint.load(stored, blank)
    for name, tensor in blank.items():
        kind, rest = name.split("/", 1)
        if kind == "optimizer":
            weight, slot = rest.rsplit("/", 1)
            found.optimizer.setdefault(weight, {})[slot] = tensor
        else:
            getattr(found, kind)[rest] = tensor
    return found


def files(path):
    """Names of a checkpoint's tensors, file by file."""
    names = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            names[file.name] = set(opened.keys())
    return names


def assert_same(a, b):
    assert a.step == b.step
    for part in ("model", "ema"):
        ours, theirs = getattr(a, part), getattr(b, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part
    assert a.optimizer
    torch.testing.assert_close(a.optimizer, b.optimizer, rtol=0, atol=0)
