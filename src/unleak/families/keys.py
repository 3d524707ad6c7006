"""Names of layers: from diffusers' to those of other tools, rule by rule."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from torch import Tensor

__all__ = ["Rule", "renamed"]

Rule: TypeAlias = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern and what takes its place."""


def renamed(tensors: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Return adapters by ComfyUI's names: every rule is applied to every name, in their order."""
    found = {}
    rules = tuple(rules)
    for name, tensor in tensors.items():
        for pattern, original in rules:
            name = re.sub(pattern, original, name)
        found[f"diffusion_model.{name}"] = tensor
    return found
