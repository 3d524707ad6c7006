"""A LoRA to add to a model, as the command line names it."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

__all__ = ["Lora"]


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
    def record(self) -> dict[str, Any]:
        """Return what it is, for the record of a video."""
        path = Path(self.source)
        digest = {"sha256": sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
        expert = {"expert": self.expert} if self.expert else {}
        return {"source": self.source, "scale": self.scale, **expert, **digest}
