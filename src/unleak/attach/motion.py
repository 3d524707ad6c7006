"""What the motion presets are where a start does not serve: in few steps, which keep to their own noise levels."""

from collections.abc import Mapping
from typing import Any

from unleak.attach.plan import Strategy
from unleak.attach.seams import Seam
from unleak.attach.strategies.compress import Compress
from unleak.attach.strategies.expert_guidance import ExpertGuidance
from unleak.attach.strategies.motion_amplitude import MotionAmplitude
from unleak.attach.strategies.reference_bias import ReferenceBias
from unleak.core.start import Start

__all__ = ["FEW_STEPS", "in_few_steps"]

_LATER = Start.step(1)

FEW_STEPS: Mapping[str, tuple[tuple[Start | None, tuple[Strategy, ...]], ...]] = {
    "low": ((None, (Compress(),)),),
    "medium": (
        (None, (MotionAmplitude(),)),
        (None, (ReferenceBias(),)),
        (None, (Compress(),)),
    ),
    "high": (
        (None, (ExpertGuidance(), MotionAmplitude())),  # Wan 2.2: the recipe of its users
        (_LATER, (MotionAmplitude(),)),
        (_LATER, (ReferenceBias(),)),
        (_LATER, (Compress(),)),
    ),
}
"""How much motion -> a start (None: every step is run) and strategies; the first that a pipeline allows is taken."""


def in_few_steps(pipe: Any, seam: Seam, motion: str) -> tuple[Start | None, tuple[Strategy, ...]] | None:
    """Return what `motion` is for this pipeline in few steps, a start and strategies; None if none of them fits."""
    for start, strategies in FEW_STEPS[motion]:
        try:
            for strategy in strategies:
                strategy.check(pipe, seam)
        except ValueError:
            continue
        return start, strategies
    return None
