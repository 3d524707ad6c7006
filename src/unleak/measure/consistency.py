"""Does a video stay itself: likeness from frame to frame, along the flow, and to the image it began from."""

from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from unleak.measure.motion import Flow

__all__ = ["Features", "dynamic_degree", "image_alignment", "ssim", "temporal_consistency", "warping_error"]

Frames = UInt8[np.ndarray, "f h w 3"]


@runtime_checkable
class Features(Protocol):
    """Unit features of pictures, such as CLIP's or DINO's (`unleak.measure.extractors.ImageFeatures`)."""

    name: str

    def __call__(self, frames: Frames) -> Float[np.ndarray, "f d"]:
        """Of each of `frames`."""
        ...


def temporal_consistency(frames: Frames, features: Features | None = None) -> float:
    """Mean cosine of the features of adjacent frames, as the paper has it with CLIP; without features their SSIM.

    1 for a still: read it beside the motion. The two do not compare with each other.
    """
    if features is None:
        return float(np.mean([ssim(a, b) for a, b in pairwise(frames)]))
    found = features(frames)
    return float((found[1:] * found[:-1]).sum(1).mean())


def image_alignment(frames: Frames, image: UInt8[np.ndarray, "H W 3"], features: Features | None = None) -> float:
    """Mean cosine of the features of each frame with those of `image`, of any size; without features the mean SSIM."""
    if features is None:
        import cv2

        scaled = cv2.resize(image, (frames.shape[2], frames.shape[1]), interpolation=cv2.INTER_AREA)
        return float(np.mean([ssim(frame, scaled) for frame in frames]))
    return float((features(frames) @ features(image[None])[0]).mean())


def ssim(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Structural similarity of the luminance (Wang et al. 2004, eq. 13), Gaussian window of 1.5 px; 1 where equal."""
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


def warping_error(frames: Frames, flow: Flow) -> float | None:
    """Root mean square of each frame less the one before it moved along the flow, grey levels (Lai et al. 2018, eq. 1).

    Where the flow there and the flow back do not meet (something was covered) does not count; None if that is
    everywhere. 0 for a still.
    """
    import cv2

    squares, count = 0.0, 0
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    for a, b in pairwise(frames):
        back, there = flow(b, a), flow(a, b)
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


def dynamic_degree(frames: Frames, fps: float, flow: Flow) -> bool:
    """Whether a video is dynamic as VBench defines it (Huang et al. 2024; its flow is RAFT's): the share of such
    videos is the dynamic degree.

    At 8 Hz or the rate nearest to it, a pair of frames moves where the mean of its fastest 5 % of pixels exceeds 6 px
    for each 256 px of the shorter side; a quarter as many pairs as there are frames have to. (Of two frames VBench asks
    no motion at all and calls a still dynamic; here one pair has to move.)
    """
    taken = frames[:: max(1, round(fps / 8))]
    threshold = 6.0 * min(frames.shape[1:3]) / 256
    needed = round(4 * len(taken) / 16)
    moving = 0
    for a, b in pairwise(taken):
        speed = np.sort(np.linalg.norm(flow(a, b), axis=-1).ravel())[::-1]
        moving += bool(speed[: max(1, int(0.05 * speed.size))].mean() > threshold)
    return moving >= needed and moving > 0
