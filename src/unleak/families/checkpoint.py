"""Checkpoint files of other code, read as data: mapped into memory, never run, refused in one line."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unleak.data.files import open_regular

__all__ = ["Wrapping", "read_checkpoint", "unwrap", "wrap"]

_ZIP = b"PK\x03\x04"  # how torch.save begins a file since 2020
_ENTRIES = ("state_dict", "module")  # of Lightning and most training scripts; of DeepSpeed
_PREFIXES = ("_forward_module.", "module.")  # of DeepSpeed under Lightning; of DistributedDataParallel
_PLAIN = (bool, int, float, str)  # values that are kept beside the weights
# What torch's unpickler raises on damaged files.
_DAMAGED = (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class Wrapping:
    """What stands around the weights in a checkpoint: an entry of the outer dictionary, a prefix of every name.

    `before` and `after` are the plain values that stand beside that entry, such as `epoch` and `global_step`.
    """

    entry: str | None = "state_dict"
    prefix: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a file of safetensors or of `torch.save`. Tensors stay on the disk until they are used.

    Raises ValueError, in one line, for a damaged or truncated file and for a pickle that holds more than data.
    """
    path = Path(path)
    with open_regular(path) as file:
        zipped = file.read(len(_ZIP)) == _ZIP
    if zipped and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not whole, its end is missing; download or copy it again")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged or not whole ({error}); download or copy it again") from error
    except _DAMAGED as error:
        if unsafe := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path}: a pickle that asks for {unsafe[1]}, more than plain tensors: refused, for it may run code; "
                "have it saved as safetensors"
            ) from error
        raise ValueError(f"{path}: no checkpoint, or a damaged one; download or copy it again") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], Wrapping]:
    """Return the weights in a checkpoint, and what stood around them. ValueError if not all are tensors."""
    entry = next((entry for entry in _ENTRIES if isinstance(content.get(entry), Mapping)), None)
    state = content if entry is None else content[entry]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"no weights: a dictionary of tensors is expected, or one under {' or '.join(_ENTRIES)}")
    prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state)), "")
    weights = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    if entry is None:
        return weights, Wrapping(None, prefix)
    place = list(content).index(entry)
    beside = [{key: value for key, value in part if isinstance(value, _PLAIN)} for part in _around(content, place)]
    return weights, Wrapping(entry, prefix, *beside)


def wrap(state: Mapping[str, Tensor], wrapping: Wrapping) -> dict[str, Any]:
    """Put weights back into what `unwrap` took away."""
    named = {wrapping.prefix + key: tensor for key, tensor in state.items()}
    return named if wrapping.entry is None else {**wrapping.before, wrapping.entry: named, **wrapping.after}


def _around(content: Mapping[str, Any], place: int) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    items = list(content.items())
    return items[:place], items[place + 1 :]
