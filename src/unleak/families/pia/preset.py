"""What was published for PIA (Zhang et al. 2023, arXiv 2312.13964): its motion scales, its call, its noise schedule."""

from collections.abc import Mapping
from typing import Any

__all__ = ["CALL", "CONDITION", "FPS", "MOTION_SCALES", "SCHEDULER", "condition_strength"]

CALL: Mapping[str, Any] = {
    "height": 512,
    "width": 512,
    "num_frames": 16,
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
}
"""Arguments of the call."""

FPS = 8.0

SCHEDULER: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
}
"""DDIM as it was trained with; Stable Diffusion's own betas are `scaled_linear`, which is another noise schedule."""

MOTION_SCALES: Mapping[str, int] = {
    "small": 0,
    "moderate": 1,
    "large": 2,
    "small-loop": 3,
    "moderate-loop": 4,
    "large-loop": 5,
    "small-style": 6,
    "moderate-style": 7,
    "large-style": 8,
}
"""How much motion -> `motion_scale`; `loop`: the last frame returns to the photo, which takes 16 frames; `style`: the
photo is followed loosely from the first frame on, and a personalised base paints it anew."""

CONDITION: tuple[tuple[float, ...], ...] = (
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5),
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 1.0),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75, 0.75, 0.75, 0.75, 0.75, 0.78, 0.79, 0.8, 0.8, 1.0),
    (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1.0),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.3),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.35, 0.3, 0.25, 0.2),
    (0.5, 0.2),
)
"""How closely each frame is to follow the photo, by motion scale; the last value stands for all frames after it."""


def condition_strength(motion_scale: int, num_frames: int) -> tuple[float, ...]:
    """How closely each of `num_frames` frames is to follow the photo. ValueError for a scale that is not 0 to 8."""
    if not 0 <= motion_scale < len(CONDITION):
        raise ValueError(f"motion_scale={motion_scale}: give 0 to 8, which are {', '.join(MOTION_SCALES)}.")
    curve = CONDITION[motion_scale][:num_frames]
    return curve + curve[-1:] * (num_frames - len(curve))
