"""How fast the content of a video moves, in pixels of the video itself."""

from itertools import pairwise

import numpy as np
from jaxtyping import UInt8

from unleak.measure.motion import DIS, SCORE_SIZE, Flow

__all__ = ["speed"]


def speed(frames: UInt8[np.ndarray, "f h w 3"], *, flow: Flow | None = None) -> float:
    """Mean length of the optical flow between adjacent frames, in pixels of `frames` per frame.

    It is the motion score's flow, found at 800x450, with each direction scaled back to the video's own size and the
    mean over the pairs in place of their sum. Like the score it counts any change: noise and dissolution too.
    """
    import cv2

    if len(frames) < 2:
        raise ValueError(f"motion is measured on two or more frames, not on {len(frames)}")
    flow = flow or DIS()
    _, height, width, _ = frames.shape
    back = np.array([width / SCORE_SIZE[0], height / SCORE_SIZE[1]])
    resized = [cv2.resize(frame, SCORE_SIZE, interpolation=cv2.INTER_LINEAR) for frame in frames]
    return float(np.mean([np.linalg.norm(flow(a, b) * back, axis=-1).mean() for a, b in pairwise(resized)]))
