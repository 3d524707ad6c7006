"""How much a video moves where a mask says that it should move, and how much elsewhere."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, UInt8

from unleak.measure.motion import DIS, SCORE_SIZE, Flow

__all__ = ["MaskedMotion", "masked_motion"]

CHANGED = 20  # grey levels of 255, as in Animate-Anything's own measure of precision


@dataclass(frozen=True)
class MaskedMotion:
    """Motion inside and outside a mask; None where there is no such place, or where nothing moved."""

    inside: float | None
    """Mean flow magnitude inside the mask, summed over the pairs of adjacent frames, in pixels at 800x450."""
    outside: float | None
    """The same outside the mask."""
    precision: float | None
    """Share inside the mask of the pixels that ever differ from the first frame by more than 20 grey levels."""
    share: float
    """Share of the picture that is inside the mask."""
    estimator: str


def masked_motion(
    frames: UInt8[np.ndarray, "f h w 3"], mask: Bool[np.ndarray, "h w"], *, flow: Flow | None = None
) -> MaskedMotion:
    """Return the motion of `frames` (uint8 RGB, two or more) inside and outside `mask`, in units of `motion_score`.

    share * inside + (1 - share) * outside is the motion score, except for the resizing of the mask. Raises ValueError
    for fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f"motion is measured on two or more frames, not on {len(frames)}.")
    flow = flow or DIS()
    import cv2

    resized = [cv2.resize(frame, SCORE_SIZE, interpolation=cv2.INTER_LINEAR) for frame in frames]
    moves = cv2.resize(mask.astype(np.uint8), SCORE_SIZE, interpolation=cv2.INTER_NEAREST) > 0
    length = sum(np.linalg.norm(flow(a, b), axis=-1) for a, b in pairwise(resized))
    gray = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    changed = (abs(gray - gray[0]) > CHANGED).any(axis=0)
    return MaskedMotion(
        inside=float(length[moves].mean()) if moves.any() else None,
        outside=float(length[~moves].mean()) if not moves.all() else None,
        precision=float(mask[changed].mean()) if changed.any() else None,
        share=float(moves.mean()),
        estimator=f"{flow.name} at {SCORE_SIZE[0]}x{SCORE_SIZE[1]}",
    )
