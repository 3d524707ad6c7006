"""What a search for a start is to reach, as people write it: read without loading torch."""

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["BEST_PSNR", "Fidelity", "TargetMotion"]

BEST_PSNR = 60.0
"""dB; a first frame that is the photo itself has infinitely many."""


@dataclass(frozen=True)
class TargetMotion:
    """How fast the content of a video is to move on the average over the picture, in pixels of that video."""

    value: float
    unit: Literal["px/s", "px/frame"]

    @classmethod
    def parse(cls, text: str) -> "TargetMotion":
        """Read `8px/s` or `0.5px/frame`; ValueError for anything else."""
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(px/s|px/frame)?\s*", text)
        if match is None or not 0 < float(match[1]) < 1e6:
            raise ValueError(f"target motion {text!r}: give a speed above 0, such as 8px/s or 0.5px/frame")
        if match[2] is None:
            raise ValueError(f"target motion {text} is ambiguous: {match[1]}px/s or {match[1]}px/frame?")
        return cls(float(match[1]), "px/s" if match[2] == "px/s" else "px/frame")

    def per_frame(self, fps: float) -> float:
        """Pixels per frame of a video that is played at `fps` Hz."""
        return self.value / fps if self.unit == "px/s" else self.value

    def text(self, per_frame: float, fps: float) -> str:
        """Return another speed in the unit of this one."""
        speed = per_frame * fps if self.unit == "px/s" else per_frame
        return f"{speed:.3g}{self.unit}" if speed < 1000 else f"{speed:.0f}{self.unit}"

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


@dataclass(frozen=True)
class Fidelity:
    """The least PSNR of the first frame against the photo: `value` dB, or that far below the plain video's."""

    value: float
    below_plain: bool

    @classmethod
    def parse(cls, text: str) -> "Fidelity":
        """Read `plain-3dB` or `22dB`; ValueError for anything else."""
        match = re.fullmatch(r"\s*(plain\s*-\s*)?(\d+\.?\d*|\.\d+)\s*dB\s*", text, re.IGNORECASE)
        if match is None or float(match[2]) > BEST_PSNR:
            raise ValueError(
                f"fidelity {text!r}: give the least PSNR of the first frame, 0 to {BEST_PSNR:g} dB, such as 22dB, or"
                " how far below the plain video's it may be, such as plain-3dB"
            )
        return cls(float(match[2]), match[1] is not None)

    def least(self, plain: float) -> float:
        """Return the bound in dB, where the plain video has `plain`."""
        return plain - self.value if self.below_plain else self.value

    def __str__(self) -> str:
        return f"{'plain-' if self.below_plain else ''}{self.value:g}dB"
