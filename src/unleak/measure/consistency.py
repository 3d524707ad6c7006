"""Does a video stay itself? Likeness from frame to frame, along the optical flow, and to the conditioning image."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from unleak.measure.motion import Flow

__all__ = ["Features", "dynamic_degree", "image_alignment", "ssim", "temporal_consistency", "warping_error"]

Frames = UInt8[np.ndarray, "f h w 3"]


@runtime_checkable
class Features(Protocol):
    """A network that gives features of length 1 for pictures, such as CLIP (`unleak.measure.extractors`)."""

    name: str

    def __call__(self, frames: Frames) -> Float[np.ndarray, "f d"]:
        """Return the features of each frame."""
        ...


def temporal_consistency(frames: Frames, features: Features | None = None) -> float:
    """Return the mean cosine of the features of adjacent frames, as in the paper with CLIP; without features, the SSIM.

    A still image has 1: read it beside the motion. The cosine and the SSIM cannot be compared with each other.
    """
    if features is None:
        return float(np.mean([ssim(a, b) for a, b in pairwise(frames)]))
    found = features(frames)
    return float((found[1:] * found[:-1]).sum(1).mean())


def image_alignment(frames: Frames, image: UInt8[np.ndarray, "H W 3"], features: Features | None = None) -> float:
    """Return the mean cosine of the features of each frame and of `image`, of any size; without features, the SSIM."""
    if features is None:
        import cv2

        scaled = cv2.resize(image, (frames.shape[2], frames.shape[1]), interpolation=cv2.INTER_AREA)
        return float(np.mean([ssim(frame, scaled) for frame in frames]))
    return float((features(frames) @ features(image[None])[0]).mean())


def ssim(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return the structural similarity of the luminance (Wang et al. 2004, eq. 13; Gaussian window of 1.5 px)."""
    import cv2

    x, y = (frame.astype(np.float64) @ (0.299, 0.587, 0.114) for frame in (a, b))

    def blurred(z: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(z, (11, 11), 1.5)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    cov = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(value.mean())


def warping_error(
    frames: Frames, flow: Flow, *, flows: Sequence[Float[np.ndarray, "h w 2"]] | None = None
) -> float | None:
    """Return the RMS difference, in grey levels, of each frame and the one before it moved along the flow.

    (Lai et al. 2018, eq. 1.) Pixels where the flow forward and the flow back do not meet, because something was
    covered, do not count; the result is None if no pixel is left. It is 0 for a still image.

    flows: the flow from each frame to the next, if it is known already.
    """
    import cv2

    squares, count = 0.0, 0
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    for k, (a, b) in enumerate(pairwise(frames)):
        back, there = flow(b, a), flow(a, b) if flows is None else flows[k]
        at = (x + back[..., 0].astype(np.float32), y + back[..., 1].astype(np.float32))
        warped = cv2.remap(a, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float64)
        returned = cv2.remap(there.astype(np.float32), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart = np.square(returned + back).sum(-1)
        bound = 0.01 * (np.square(returned).sum(-1) + np.square(back).sum(-1)) + 0.5  # Sundaram et al. 2010, eq. 5
        inside = (at[0] >= 0) & (at[0] <= frames.shape[2] - 1) & (at[1] >= 0) & (at[1] <= frames.shape[1] - 1)
        seen = (apart < bound) & inside
        squares += float(np.square(warped - b)[seen].sum())
        count += 3 * int(seen.sum())
    return float(np.sqrt(squares / count)) if count else None


def dynamic_degree(
    frames: Frames, fps: float | int, flow: Flow, *, flows: Sequence[Float[np.ndarray, "h w 2"]] | None = None
) -> bool:
    """Return whether VBench calls a video dynamic (Huang et al. 2024, who use RAFT); the dynamic degree is the share.

    The frames are taken at 8 Hz or the rate nearest to it. A pair of frames moves if the mean flow of its fastest 5 %
    of pixels exceeds 6 px for each 256 px of the shorter side. The video is dynamic if a quarter as many pairs move as
    there are frames. (For two frames VBench asks for no motion and calls a still dynamic; here one pair has to move.)

    flows: the flow from each frame to the next, if it is known already; it serves where every frame is taken.
    """
    every = max(1, round(fps / 8))
    taken = frames[::every]
    if flows is None or every > 1:
        flows = [flow(a, b) for a, b in pairwise(taken)]
    threshold = 6.0 * min(frames.shape[1:3]) / 256
    needed = round(4 * len(taken) / 16)
    moving = 0
    for one in flows:
        speed = np.sort(np.linalg.norm(one, axis=-1).ravel())[::-1]
        moving += bool(speed[: max(1, int(0.05 * speed.size))].mean() > threshold)
    return moving >= needed and moving > 0
