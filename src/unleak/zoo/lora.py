"""A LoRA to add to a model, as the command line names it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

__all__ = ["Lora", "adapter_names"]

_SAYS_NOTHING = {"pytorch_lora_weights", "adapter_model", "model", "high_noise_model", "low_noise_model"}
"""File names that many LoRAs have: the folder says which it is."""


@dataclass(frozen=True)
class Lora:
    """Weights of a LoRA, and how strongly they count."""

    source: str
    """A .safetensors file, a folder with one, or a Hub id."""
    scale: float = 1.0
    expert: Literal["high", "low"] | None = None
    """Which of two experts it is added to, by the noise levels that the expert serves; None: the (first) denoiser."""

    @classmethod
    def parse(cls, text: str) -> "Lora":
        """Read `PATH`, `PATH:SCALE`, `high=PATH:SCALE` or `low=PATH:SCALE`.

        Raises ValueError for a file that is not there, and for one that is not in safetensors format.
        """
        name, equals, rest = text.partition("=")
        expert: Any = name if equals and name in ("high", "low") else None
        path_and_scale = rest if expert else text
        source, colon, number = path_and_scale.rpartition(":")
        scale = 1.0
        try:
            scale = float(number) if colon else 1.0
        except ValueError:
            source = path_and_scale
        if not colon:
            source = path_and_scale
        if not -100 <= scale <= 100:  # NaN too
            raise ValueError(f"LoRA {text}: give a scale such as 0.8 after the colon")
        path = Path(source)
        if path.is_file() and path.suffix != ".safetensors":
            raise ValueError(f"LoRA {source}: only .safetensors files are read")
        if not path.exists() and (source.count("/") != 1 or source.endswith(".safetensors")):
            raise ValueError(f"LoRA {source}: no such file or folder; give one, or a Hub id owner/name")
        return cls(source, scale, expert)

    @property
    def name(self) -> str:
        """Return the name of the file, or of its folder where the file's says nothing, in letters, digits, - and _."""
        path = Path(self.source)
        stem = path.name.removesuffix(".safetensors")
        stem = path.parent.name if stem in _SAYS_NOTHING and path.parent.name else stem
        return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "lora"

    @property
    def record(self) -> dict[str, Any]:
        """Return what it is, for the record of a video."""
        path = Path(self.source)
        digest = {"sha256": sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
        expert = {"expert": self.expert} if self.expert else {}
        return {"source": self.source, "scale": self.scale, **expert, **digest}


def adapter_names(loras: Iterable[Lora]) -> list[str]:
    """Return a name for the adapter of each LoRA: its own, with a number after it if another LoRA has that name.

    A model distilled to few steps is recognised by these names.
    """
    found: list[str] = []
    for lora in loras:
        name, number = lora.name, 2
        while name in found:
            name, number = f"{lora.name}_{number}", number + 1
        found.append(name)
    return found
