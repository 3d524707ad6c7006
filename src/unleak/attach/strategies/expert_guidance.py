"""Guidance for the high-noise expert alone, and no LoRA in it: what users of Wan 2.2 do against slow motion."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from unleak.attach.modular import argument_names, default_of
from unleak.attach.seams import Seam
from unleak.core.numbers import within
from unleak.core.process import NoiseProcess

__all__ = ["ExpertGuidance"]


@dataclass(frozen=True)
class ExpertGuidance:
    """Guide the high-noise expert of a model with two experts, without its LoRA, and the low-noise one by its own.

    The high-noise expert decides on the motion, and a LoRA that distils it to few steps slows the motion down. Users of
    Wan 2.2 leave that LoRA out there and guide this expert again; the low-noise expert keeps its LoRA, and no guidance.

    high, low: guidance scales of the two experts, 1 or more; 1 is no guidance. All LoRAs of the high-noise expert are
    switched off during the call; another pipeline that shares this expert must not be called meanwhile.
    """

    high: float | int = 3.5
    low: float | int = 1.0

    def __post_init__(self) -> None:
        for name in ("high", "low"):
            if not within(getattr(self, name), 1, 100):
                raise ValueError(f"ExpertGuidance needs {name} from 1 to 100, not {getattr(self, name)!r}.")

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if these pipelines have no second expert with a guidance scale of its own."""
        del seam, process
        if "guidance_scale_2" not in argument_names(pipeline):
            raise ValueError(
                f"ExpertGuidance cannot be attached to {pipeline.__name__}: it needs two experts with a guidance scale"
                " each (guidance_scale, guidance_scale_2), as Wan 2.2 has."
            )

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline has one expert only."""
        self.fits(type(pipe), seam)
        if getattr(pipe, "transformer_2", None) is None or getattr(pipe, "transformer", None) is None:
            raise ValueError(
                f"ExpertGuidance cannot be attached to this {type(pipe).__name__}: it has one expert, not two."
            )

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Set the guidance scales in `arguments`, and switch the LoRAs of the high-noise expert off in the body."""
        del seam
        for name, scale in (("guidance_scale", self.high), ("guidance_scale_2", self.low)):
            if arguments.get(name) not in (None, scale, default_of(pipe, name)):
                raise ValueError(
                    f"this call gives {name}={arguments[name]:g}, and ExpertGuidance sets it to {scale:g}: leave one of"
                    " them away."
                )
            arguments[name] = scale
        layers: list[Any] = [
            one for one in pipe.transformer.modules() if isinstance(getattr(one, "lora_A", None), nn.ModuleDict)
        ]
        if any(layer.merged for layer in layers):
            raise ValueError("ExpertGuidance cannot switch fused LoRAs off: unfuse them first (pipe.unfuse_lora()).")
        acting = [layer for layer in layers if not layer.disable_adapters]
        try:
            for layer in acting:
                layer._disable_adapters = True  # not `enable_adapters`, which sets `requires_grad` too
            yield
        finally:
            for layer in acting:
                layer._disable_adapters = False
