"""The usual causes of a still video besides leakage, read from the pipeline, its settings and its photos."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from unleak.attach.distilled import NAMES

__all__ = ["Cause", "causes"]

FEW_STEPS = 8
LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff", ".ppm"})
_MOTION_WORDS = re.compile(
    r"\b(\w+ing|moves?|turns?|walks?|runs?|flows?|falls?|drifts?|waves?|pans?|zooms?|rotates?|opens?|closes?|rises?|flies"
    r"|swims?|jumps?|dances?|shakes?|blows?|spins?|camera|motion|slowly|quickly|towards?|away)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cause:
    """A cause: whether it is suspect here, and why, in a sentence."""

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
    photos: Sequence[Path] = (),
    loras: Sequence[Mapping[str, Any]] = (),
) -> list[Cause]:
    """Check every cause that can be checked.

    settings: arguments of the pipeline's call. usual: the values that the model is made for.
    motion: of the reference clips, in the units of `still_below`. fps: the rate at which the clips were read, Hz.
    steps: of the schedule. The amounts are motion relative to the clips', with guidance and without.
    photos: the files that the videos are made of, if they are known. loras: `Lora.record` of each.
    """
    steps = steps or settings.get("num_inference_steps")
    found = [_clips(motion, still_below), _rate(settings, usual, fps), _bucket(settings, usual), _cache(pipe)]
    found += [_size(settings, usual), _sides(pipe, settings), _photo(pipe, settings, photos), _strength(settings)]
    found += [_guidance(settings, usual, pipeline_amount, unguided_amount), _steps(pipe, steps)]
    found += [_quantised(pipe, loras), _expert(pipe, settings, steps, loras), _prompt(settings)]
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
        text = f"the model is given {told:g} frames a second and is made for about {float(normal):g}"
        return Cause("fps", "suspect", f"{text}; a high rate asks for little motion between frames")
    if fps and not 0.5 <= told / fps <= 2:
        return Cause("fps", "suspect", f"the model is given {told:g} frames a second, the clips have {fps:g}")
    return Cause("fps", "fine", f"the model is given {told:g} frames a second")


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
    """A step cache answers later steps with the result of an earlier one."""
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
    """Return whether a cache holds the keys and values of the text, which are the same in every step."""
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


def _sides(pipe: Any, settings: Mapping[str, Any]) -> Cause | None:
    """LTX pads sides that are not multiples of 32, and the padding stills the video."""
    w, h = settings.get("width"), settings.get("height")
    if not _is_ltx(pipe) or not (w and h):
        return None
    if w % 32 or h % 32:
        return Cause("sides", "suspect", f"{w}x{h}: LTX wants multiples of 32 and stands still otherwise")
    return Cause("sides", "fine", f"{w}x{h} are multiples of 32")


def _photo(pipe: Any, settings: Mapping[str, Any], photos: Sequence[Path]) -> Cause | None:
    """LTX was trained on frames of compressed videos and tends to hold a photo without their artefacts still."""
    if not _is_ltx(pipe) or not photos:
        return None
    if settings.get("image_crf"):
        return Cause("photo", "fine", f"the pipeline compresses the photo (image_crf {settings['image_crf']})")
    if clean := [photo for photo in photos if photo.suffix.lower() in LOSSLESS]:
        text = (
            f"{clean[0].name} is not compressed, and LTX was trained on frames of compressed videos: compress the photo"
            " (`--fix compress`, or a JPEG of low quality)"
        )
        return Cause("photo", "suspect", text)
    return Cause("photo", "unknown", "the photos are compressed; LTX may want more of it (`--fix compress`)")


def _is_ltx(pipe: Any) -> bool:
    return type(pipe).__name__.startswith("LTX")


def _strength(settings: Mapping[str, Any]) -> Cause | None:
    """A strength of 1 holds the conditioning frame without any noise."""
    value = settings.get("strength")
    if value is None:
        return None
    if float(value) >= 1:
        text = (
            f"strength is {float(value):g}: the model is given the photo without noise; try 0.9 (`--set strength=0.9`)"
        )
        return Cause("strength", "suspect", text)
    return Cause("strength", "fine", f"strength is {float(value):g}")


def _quantised(pipe: Any, loras: Sequence[Mapping[str, Any]]) -> Cause:
    parts = getattr(pipe, "components", {}).items()
    names = [
        name for name, part in parts if getattr(part, "hf_quantizer", None) or getattr(part, "is_quantized", False)
    ]
    if not names:
        return Cause("quantisation", "fine", "no part is quantised")
    text = f"{', '.join(names)} is quantised"
    if _is_distilled(pipe, loras):
        text += ", and the model is distilled: int8 weights of distilled models are known to repeat one frame"
    return Cause("quantisation", "suspect", f"{text}; compare with the full weights")


def _expert(
    pipe: Any, settings: Mapping[str, Any], steps: int | None, loras: Sequence[Mapping[str, Any]]
) -> Cause | None:
    """Of two experts, the one for high noise decides the motion; a distilled one loses most of it."""
    if getattr(pipe, "transformer_2", None) is None:
        return None
    high = [one for one in loras if one.get("expert") != "low" and NAMES.search(Path(str(one["source"])).name)]
    unguided = steps is not None and steps <= FEW_STEPS and float(settings.get("guidance_scale") or 1) <= 1
    advice = (
        "run the high-noise expert without the LoRA and with guidance 3.5, and only the low-noise one distilled"
        " (`--lora low=FILE --guidance high=3.5,low=1`)"
    )
    if high:
        name = Path(str(high[0]["source"])).name
        return Cause("high expert", "suspect", f"the high-noise expert, which decides the motion, has {name}: {advice}")
    if unguided:
        text = f"the high-noise expert, which decides the motion, runs distilled ({steps} steps, no guidance): {advice}"
        return Cause("high expert", "suspect", text)
    return Cause("high expert", "fine", "the high-noise expert is not known to be distilled")


def _is_distilled(pipe: Any, loras: Sequence[Mapping[str, Any]]) -> bool:
    names = [str(one["source"]) for one in loras] + [str(getattr(pipe, "name_or_path", None) or "")]
    return any(NAMES.search(name) for name in names)


def _prompt(settings: Mapping[str, Any]) -> Cause | None:
    if "prompt" not in settings:
        return None
    prompt = (settings["prompt"] or "").strip()
    if not prompt:
        return Cause("prompt", "suspect", "this model reads a prompt and has none: say what happens in the video")
    if not _MOTION_WORDS.search(prompt):
        text = f"{prompt[:60]!r} says what is seen and not what happens: say what moves, and how"
        return Cause("prompt", "suspect", text)
    return Cause("prompt", "fine", "the prompt speaks of motion")
