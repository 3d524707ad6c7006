"""The usual causes of a still video besides leakage: what a pipeline and its settings say of themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

__all__ = ["Cause", "causes"]

FEW_STEPS = 8


@dataclass(frozen=True)
class Cause:
    """One of them: whether it is suspect here, and why, in a sentence."""

    name: str
    state: Literal["fine", "suspect", "unknown"]
    text: str


def causes(
    pipe: Any,
    settings: Mapping[str, Any],
    usual: Mapping[str, Any],
    *,
    motion: Sequence[float],
    still_below: float,
    fps: float | None = None,
    steps: int | None = None,
    pipeline_amount: float | None = None,
    unguided_amount: float | None = None,
) -> list[Cause]:
    """Every cause that can be checked. `settings` are arguments of the pipeline's call, `usual` those it is made for.

    motion: of the reference clips, in the units of `still_below`. fps: the rate that the clips were read at, Hz.
    steps: that the schedule really has. The amounts are motion relative to the clips', with guidance and without.
    """
    found = [_clips(motion, still_below), _rate(settings, usual, fps), _bucket(settings, usual), _cache(pipe)]
    found += [_size(settings, usual), _guidance(settings, usual, pipeline_amount, unguided_amount)]
    found += [_steps(pipe, steps or settings.get("num_inference_steps")), _quantised(pipe), _prompt(settings)]
    return [one for one in found if one is not None]


def _clips(motion: Sequence[float], still_below: float) -> Cause:
    still = float(np.mean([one < still_below for one in motion]))
    text = f"{still:.0%} of the reference clips hardly move (median {np.median(motion):.2f} px of 400x225 a frame)"
    if still > 0.5:
        return Cause("reference clips", "suspect", f"{text}: a model trained on such clips is right to stand still")
    return Cause("reference clips", "fine", text)


def _rate(settings: Mapping[str, Any], usual: Mapping[str, Any], fps: float | None) -> Cause | None:
    name = next((name for name in ("fps", "frame_rate") if settings.get(name) is not None), None)
    if name is None:
        return None
    told, normal = float(settings[name]), usual.get(name)
    if normal and not 0.5 <= told / float(normal) <= 2:
        text = f"the model is told {told:g} frames a second and is made for about {float(normal):g}"
        return Cause("fps", "suspect", f"{text}; a high rate asks for little motion between frames")
    if fps and not 0.5 <= told / fps <= 2:
        return Cause("fps", "suspect", f"the model is told {told:g} frames a second, the clips have {fps:g}")
    return Cause("fps", "fine", f"the model is told {told:g} frames a second")


def _bucket(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> Cause | None:
    name = next(
        (n for n in ("motion_bucket_id", "motion_strength", "motion_scale") if settings.get(n) is not None), None
    )
    if name is None:
        return None
    value, normal = float(settings[name]), usual.get(name)
    if normal and value < 0.5 * float(normal):
        return Cause(name, "suspect", f"{name} is {value:g} and usually {float(normal):g}: little motion is asked for")
    return Cause(name, "fine", f"{name} is {value:g}")


def _cache(pipe: Any) -> Cause:
    """A cache of steps answers for later steps with what an earlier one said."""
    on = list[str]()
    for name, part in getattr(pipe, "components", {}).items():
        if not isinstance(part, nn.Module):
            continue
        hooks = (getattr(module, "_diffusers_hook", None) for module in part.modules())
        kinds = {kind for hook in hooks for kind in getattr(hook, "hooks", {}) or {} if _is_cache(kind)}
        config = getattr(part, "_cache_config", None)  # of diffusers' CacheMixin
        if kinds or (config is not None and not _is_of_text(type(config).__name__)):
            on.append(f"{name} ({', '.join(sorted(kinds)) or 'on'})")
    if on:
        text = f"a step cache is on in {', '.join(on)}: switch it off (`disable_cache()`) and look again"
        return Cause("step cache", "suspect", text)
    return Cause("step cache", "fine", "no step cache of diffusers is on; others cannot be seen from here")


def _is_cache(kind: str) -> bool:
    words = ("cache", "broadcast", "first_block", "fbc", "taylorseer", "teacache")
    return any(word in kind.lower() for word in words) and not _is_of_text(kind)


def _is_of_text(name: str) -> bool:
    """Whether a cache holds what is the same in every step, keys and values of the text: it changes nothing."""
    return name.lower().replace("_", "").startswith("textkv")


def _size(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> Cause:
    w, h, W, H = (of.get(name) for of in (settings, usual) for name in ("width", "height"))
    if not (w and h and W and H):
        return Cause("size", "unknown", "the size that this model is made for is not known")
    text = f"{w}x{h}, made for {W}x{H}"
    if not 0.6 <= (w * h) / (W * H) <= 1.7 or not 0.7 <= (w / h) / (W / H) <= 1.4:
        return Cause("size", "suspect", f"{text}: far from it models tend to stand still or to dissolve")
    return Cause("size", "fine", text)


def _guidance(
    settings: Mapping[str, Any], usual: Mapping[str, Any], guided: float | None, unguided: float | None
) -> Cause | None:
    name = next((n for n in ("max_guidance_scale", "guidance_scale") if settings.get(n) is not None), None)
    if name is None:
        return None
    value, normal = float(settings[name]), usual.get(name)
    text = f"{name} is {value:g}"
    if guided is not None and unguided is not None:
        text += f"; with it videos move {guided:.2f} times as much as the clips, without {unguided:.2f}"
        if value > 1 and guided < 0.7 * unguided:
            return Cause("guidance", "suspect", f"{text}: try less of it")
        return Cause("guidance", "fine", text)
    if normal and value > 1.5 * float(normal):
        return Cause("guidance", "suspect", f"{text}, usually {float(normal):g}: strong guidance stills")
    return Cause("guidance", "fine", text)


def _steps(pipe: Any, steps: int | None) -> Cause:
    scheduler = type(pipe.scheduler).__name__
    few = steps is not None and steps <= FEW_STEPS
    if few or scheduler in ("LCMScheduler", "TCDScheduler"):
        text = f"{steps} steps of the {scheduler}: few-step schedules and the models distilled for them move less"
        return Cause("few steps", "suspect", text)
    return Cause("few steps", "fine", f"{steps} steps of the {scheduler}")


def _quantised(pipe: Any) -> Cause:
    parts = getattr(pipe, "components", {}).items()
    names = [
        name for name, part in parts if getattr(part, "hf_quantizer", None) or getattr(part, "is_quantized", False)
    ]
    if names:
        return Cause("quantisation", "suspect", f"{', '.join(names)} is quantised: compare with the full weights")
    return Cause("quantisation", "fine", "no part is quantised")


def _prompt(settings: Mapping[str, Any]) -> Cause | None:
    if "prompt" not in settings:
        return None
    if not (settings["prompt"] or "").strip():
        return Cause("prompt", "suspect", "this model reads a prompt and there is none: say what happens in the video")
    return Cause("prompt", "fine", "there is a prompt; whether it speaks of motion is for you to see")
