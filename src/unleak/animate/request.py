"""What a person asks of a video, whatever the model: read from texts without loading torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unleak.core.start import Start

__all__ = ["Guidance", "Request"]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance scales: one for all, of the first and the last frame, or of the two experts."""

    first: float
    """Of the first frame, or of the expert for high noise levels."""
    last: float
    """Of the last frame, or of the expert for low noise levels."""
    experts: bool = False
    """Whether the two numbers are those of two experts (Wan 2.2)."""

    @classmethod
    def parse(cls, text: str) -> "Guidance":
        """Read `3`, `1:3` (first and last frame) or `high=3.5,low=1` (experts); ValueError for anything else."""
        named = dict(part.partition("=")[::2] for part in text.replace(" ", "").lower().split(","))
        experts = named.keys() == {"high", "low"} and text.count(",") == 1
        low, _, high = text.partition(":")
        try:
            scales = [float(named[name]) for name in ("high", "low")] if experts else [float(low), float(high or low)]
        except ValueError:
            scales = []
        if not scales or not all(1 <= scale <= 100 for scale in scales):
            raise ValueError(
                f"guidance {text}: give one or two numbers from 1 (none) to 100, such as 3 or 1:3, or high=3.5,low=1 "
                "for the experts of Wan 2.2"
            )
        if not experts and scales[0] > scales[1] == 1:  # diffusers asks the last frame whether there is any guidance
            raise ValueError(f"guidance {text}: 1 at the last frame turns guidance off for all; give more, as in 3:1.1")
        return cls(scales[0], scales[1], experts=experts)

    def __str__(self) -> str:
        if self.experts:
            return f"high={self.first:g},low={self.last:g}"
        return f"{self.first:g}" if self.first == self.last else f"{self.first:g}:{self.last:g}"


@dataclass(frozen=True)
class Request:
    """What is asked of a video; None leaves the choice to the model. ValueError for `motion` together with `start`."""

    start: Start | None = None
    """None, and no `motion` either: the fix recommended for the model."""
    motion: str | None = None
    """`low`, `medium` or `high`: a preset of the model in place of a start."""
    init: str | None = None
    """`standard`, `unit`, `analytic`, or a moments file. None: the model's own with its own start, else `standard`."""
    mode: str = "auto"
    seed: int = 0
    strategies: Sequence[Any] = ()
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    """Hz; given to the model too if it takes a frame rate."""
    steps: int | None = None
    guidance: Guidance | None = None
    noise_aug_strength: float | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    others: Sequence[str] = ()
    """Further arguments of the pipeline as `NAME=VALUE`."""

    def __post_init__(self) -> None:
        if self.motion and self.start is not None:
            raise ValueError("motion chooses the start; give motion or start, not both")

    @classmethod
    def of(cls, **fields: Any) -> "Request":
        """Make a request; `start` may be a text, which `Start.parse` reads."""
        start = fields.get("start")
        return cls(**fields | ({"start": Start.parse(start)} if isinstance(start, str | int | float) else {}))
