"""How far a video is from what it should be: its first frame, its brightness, the nearest clip that could be true."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


def first_frame_psnr(frames: UInt8[np.ndarray, "f h w 3"], image: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return the peak signal-to-noise ratio of the first frame against the conditioning image, dB; inf if equal."""
    return _psnr(_rmse(frames[0], image))


def flicker(frames: UInt8[np.ndarray, "f h w 3"]) -> float:
    """Return the root mean square of the second difference in time of each frame's mean colour, in grey levels.

    Motion changes the mean colour steadily, and a second difference does not see that; flicker does not. It is 0 for a
    still image. Raises ValueError for fewer than three frames.
    """
    if len(frames) < 3:
        raise ValueError(f"flicker needs three frames or more, not {len(frames)}")
    colour = frames.reshape(len(frames), -1, 3).mean(1)
    return float(np.sqrt(np.square(np.diff(colour, n=2, axis=0)).mean()))


@dataclass(frozen=True)
class Nearest:
    """The clip of a set that is closest to a video: its place in the set, and its distance in grey levels (RMSE over
    all frames, and over the last one, where the clips differ most)."""

    index: int
    distance: float
    last_frame: float


def nearest_clip(frames: UInt8[np.ndarray, "f h w 3"], candidates: UInt8[np.ndarray, "k f h w 3"]) -> Nearest:
    """Return the candidate with the least root mean square error to `frames`.

    If the candidates are the clips of one scene under every motion it can have, the distance shows what a motion score
    rewards wrongly: dissolution, flicker, noise and shuffled frames are far from all of them.
    """
    distances = [_rmse(frames, candidate) for candidate in candidates]
    index = int(np.argmin(distances))
    return Nearest(index, distances[index], _rmse(frames[-1], candidates[index][-1]))


def _rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a.astype(np.float64) - b).mean()))


def _psnr(rmse: float) -> float:
    return float(20 * np.log10(255 / rmse)) if rmse else float("inf")


def sharpness(frames: UInt8[np.ndarray, "f h w 3"]) -> Float[np.ndarray, " f"]:
    """Return the mean absolute difference of horizontal neighbours of each frame, grey levels.

    It falls where a video blurs and rises where a video dissolves into noise: compare it with the first frame's.
    """
    return np.abs(np.diff(frames.astype(np.float64), axis=2)).mean((1, 2, 3))
