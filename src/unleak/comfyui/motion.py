"""Defines low, medium and high motion for each kind of ComfyUI model, for many steps and for few."""

from collections.abc import Sequence
from typing import Any

from unleak.attach.motion import FEW_STEPS
from unleak.attach.seams import presets
from unleak.attach.strategies.compress import Compress
from unleak.attach.strategies.registry import parse_fixes
from unleak.comfyui.hooks import Plan
from unleak.comfyui.sampling import Sampling
from unleak.comfyui.strategies import wrap_of
from unleak.core.process import VP
from unleak.core.start import Start

__all__ = ["MOTIONS", "plan_of"]

MOTIONS = ("off", "low", "medium", "high")


def plan_of(model: Any, motion: str) -> Plan:
    """Return what `motion` (low, medium or high) is for `model`, a ComfyUI ModelPatcher: a start, and maybe fixes.

    The presets are those of the same model in diffusers. ValueError for a model whose noise unleak does not know.
    """
    sampling = Sampling.of(model.get_model_object("model_sampling"))
    starts, fixes = presets.EQUAL_SNR, tuple[str, ...]()
    if "SVD_img2vid" in {base.__name__ for base in type(model.model).__mro__}:
        starts, fixes = presets.SVD, presets.SVD_FIXES.get(motion, ())
    elif isinstance(sampling.process, VP):
        starts = presets.VP
    wraps = tuple(wrap_of(model, fix) for fix in parse_fixes(fixes))
    return Plan(starts[motion], "nearest", fixes=wraps, few=_in_few_steps(model, motion))


def _in_few_steps(model: Any, motion: str) -> Plan | None:
    """Return what `motion` is where the model keeps to its own noise levels: the first of the table that fits."""
    for later, strategies in FEW_STEPS[motion]:
        try:
            wraps = tuple(wrap_of(model, one) for one in strategies if not isinstance(one, Compress))
        except ValueError:  # not for this model, or not for a node between the loader and the sampler
            continue
        return Plan(later or Start.step(0), "truncate", fixes=wraps, remark=_in_words(motion, later, strategies))
    return None


def _in_words(motion: str, later: Start | None, strategies: Sequence[Any]) -> str:
    fixes = ", ".join(map(repr, strategies))
    more = f" and the start {later}" if later else ""
    text = f"motion {motion} is {fixes}{more} here, since a model made for few steps knows no noise levels but its own"
    if any(isinstance(one, Compress) for one in strategies):
        text += ": put the node unleak Compress between the photo and the node that takes it"
    return text
