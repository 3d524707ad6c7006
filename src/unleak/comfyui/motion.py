"""How much motion: low, medium or high, as a start for each kind of ComfyUI model."""

from collections.abc import Mapping
from typing import Any

from unleak.attach.seams import presets
from unleak.comfyui.sampling import Sampling
from unleak.core.process import VP
from unleak.core.start import Start

__all__ = ["MOTIONS", "starts_of"]

MOTIONS = ("off", "low", "medium", "high")


def starts_of(model: Any, sampling: Sampling) -> Mapping[str, Start]:
    """Return the starts of low, medium and high motion for `model` (a ComfyUI ModelPatcher)."""
    if "SVD_img2vid" in {base.__name__ for base in type(model.model).__mro__}:
        return presets.SVD
    return presets.VP if isinstance(sampling.process, VP) else presets.EQUAL_SNR
