"""What tests of training runs share: to read a run's newest checkpoint, and to compare two."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from unleak.train import checkpoint
from unleak.train.config import dump_recipe

ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


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


def assert_close(ours, theirs, *, atol=1e-6):
    """Of the optimizer's averages: Adam's step makes a sign of what rounding leaves of a gradient that is zero."""
    assert ours.step == theirs.step
    for a, b in zip(ours.optimizer.values(), theirs.optimizer.values(), strict=True):
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=0, atol=atol)


def launch(recipe, *, processes=1, **changes):
    """Train in processes of their own, joined by gloo."""
    path = recipe.output.with_suffix(".yaml")
    path.write_text(dump_recipe(recipe.model_copy(update=changes)))
    command = [sys.executable, *(TWO if processes == 2 else []), "-m", "unleak.train", str(path)]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr
