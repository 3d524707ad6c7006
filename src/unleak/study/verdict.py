"""Whether a video moves, stays sharp and begins with its photo: what every command says of the videos it made."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unleak.data.image import fit_image
from unleak.measure.fidelity import first_frame_psnr, sharpness
from unleak.measure.motion import MotionScore, motion_score
from unleak.study.tune.goal import BEST_PSNR

__all__ = ["STILL", "Verdict", "as_shown", "verdict"]

STILL = 0.03
"""Share of its width that a video moves per second; below it a person sees a still picture."""
SHARP = (0.75, 1.33)
"""Sharpness of the last frame over that of the first: below it has blurred, above it dissolves into noise."""


Frames = UInt8[np.ndarray, "f h w 3"]


@dataclass(frozen=True)
class Verdict:
    """What was measured on one video."""

    motion: MotionScore
    speed: float
    """Mean length of the optical flow as a share of the width per second."""
    first_frame: float
    """PSNR of the first frame against the photo, dB."""
    sharpness: float
    """Of the last frame over that of the first."""

    @property
    def still(self) -> bool:
        """Return whether a person would call it a still picture."""
        return self.speed < STILL

    @property
    def sharp(self) -> bool:
        """Return whether the last frame is about as sharp as the first."""
        return SHARP[0] <= self.sharpness <= SHARP[1]

    @property
    def text(self) -> str:
        """Return the verdict in a few words."""
        moves = "stands still" if self.still else "moves"
        blurs = "blurs" if self.sharpness < 1 else "turns to noise"
        return f"{moves} ({self.speed:.1%} of its width a second), {'sharp' if self.sharp else blurs}"

    @property
    def record(self) -> dict[str, float | bool | str]:
        """Return it as plain values."""
        return {
            "score": self.motion.value,
            "estimator": self.motion.estimator,
            "width_per_second": self.speed,
            "first_frame_psnr": self.first_frame,
            "last_frame_sharpness": self.sharpness,
            "still": self.still,
        }


def verdict(frames: Frames, photo: Image.Image, *, fps: float, motion: MotionScore | None = None) -> Verdict:
    """Measure a video made of `photo` and played at `fps` Hz; `motion` is its motion score, if it is known already.

    Raises ModuleNotFoundError if what measures is not installed (`pip install 'unleak[evaluate]'`).
    """
    motion = motion or motion_score(frames)
    sharp = sharpness(frames)
    fidelity = min(first_frame_psnr(frames, as_shown(photo, frames)), BEST_PSNR)
    ratio = float(sharp[-1] / max(sharp[0], 1e-6))
    return Verdict(motion, motion.speed * fps / frames.shape[2], fidelity, ratio)


def as_shown(photo: Image.Image, frames: Frames) -> UInt8[np.ndarray, "h w 3"]:
    """Return the photo at the size of `frames`, cropped or squashed, whichever the pipeline did by its first frame."""
    _, h, w, _ = frames.shape
    photo = photo.convert("RGB")
    both = [fit_image(photo, h, w), photo.resize((w, h), Image.Resampling.LANCZOS)]
    return max((np.asarray(one) for one in both), key=lambda one: first_frame_psnr(frames, one))
