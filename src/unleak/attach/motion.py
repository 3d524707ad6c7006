"""What the motion presets are beside a start, and in few steps, which keep to their own noise levels."""

from collections.abc import Iterable, Mapping
from typing import Any

from unleak.attach.plan import Strategy
from unleak.attach.seams import Seam
from unleak.attach.strategies.compress import Compress
from unleak.attach.strategies.expert_guidance import ExpertGuidance
from unleak.attach.strategies.motion_amplitude import MotionAmplitude
from unleak.attach.strategies.reference_bias import ReferenceBias
from unleak.attach.strategies.registry import parse_fixes
from unleak.core.start import Start

__all__ = ["FEW_STEPS", "in_few_steps", "in_words", "joined", "with_fixes_of"]

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


def with_fixes_of(seam: Seam, motion: str | None, strategies: Iterable[Strategy]) -> tuple[Strategy, ...]:
    """Return `strategies` and those that the preset `motion` adds to its start, unless one of their kind is given."""
    return joined(strategies, parse_fixes(seam.motion_fixes.get(motion or "", ())))


def joined(strategies: Iterable[Strategy], more: Iterable[Strategy]) -> tuple[Strategy, ...]:
    """Return `strategies` and those of `more` that are of no kind among them."""
    first = tuple(strategies)
    kinds = {type(one) for one in first}
    return (*first, *(one for one in more if type(one) not in kinds))


def in_words(pipeline: type, seam: Seam, motion: str, start: Start, *, few: bool) -> str:
    """Return what a preset of a class of pipelines is: its start, its fixes, and what it is in few steps.

    few: whether few steps of such a pipeline keep to their own levels.
    """
    text = " and ".join([f"start {start}", *seam.motion_fixes.get(motion, ())])
    if not few:
        return text
    allowed = []
    for later, strategies in FEW_STEPS[motion]:
        try:
            for strategy in strategies:
                strategy.fits(pipeline, seam)
        except ValueError:
            continue
        allowed.append(" and ".join([*map(repr, strategies), *([f"start {later}"] if later else [])]))
    return text + f"; in few steps {', or '.join(allowed)}, the first that the model allows" * bool(allowed)


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
