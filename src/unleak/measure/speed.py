"""How fast the content of a video moves, in pixels of the video itself."""

import numpy as np
from jaxtyping import UInt8

from unleak.measure.motion import Flow, motion_score

__all__ = ["speed"]


def speed(frames: UInt8[np.ndarray, "f h w 3"], *, flow: Flow | None = None) -> float:
    """Return the mean length of the optical flow between adjacent frames, in pixels of `frames` per frame.

    It is the flow of the motion score, computed at 800x450, with each direction scaled back to the video's own size and
    averaged over the pairs instead of summed. Like the score it counts any change, also noise and dissolution.
    Where the score is needed too, take `motion_score(frames).speed`: the flow is then computed only once.
    """
    return motion_score(frames, flow=flow).speed
