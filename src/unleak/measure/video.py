"""A video as metrics see it: its frames, what is known of it, and what several metrics need computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from unleak.measure.consistency import Features
from unleak.measure.motion import DIS, Flow, MotionScore, camera_path, motion_score

__all__ = ["Video"]

Frames = UInt8[np.ndarray, "f h w 3"]


@dataclass(eq=False)
class Video:
    """The frames of one video, uint8 RGB [f h w 3], two or more, and what else is known of it; None: not known."""

    frames: Frames
    fps: float | int = 8.0
    """Frames per second."""
    image: UInt8[np.ndarray, "h w 3"] | None = None
    """The conditioning image as the model saw it: scaled and cropped to the size of the frames."""
    prompt: str | None = None
    target_motion: float | int | None = None
    """The motion score that was asked for, px at 800x450 summed over the pairs."""
    flow: Flow = field(default_factory=DIS)
    """The optical flow that every metric of motion uses."""
    features: Features | None = None
    """A network of image features, such as CLIP's."""

    @property
    def reader(self) -> Any:
        """`features` if the network also has features of texts, otherwise None."""
        return self.features if getattr(self.features, "reads", False) else None

    @cached_property
    def motion(self) -> MotionScore:
        """Return the motion score and the speed; the flow at 800x450 is computed here, once."""
        return motion_score(self.frames, flow=self.flow)

    @cached_property
    def camera(self) -> Float[np.ndarray, "pairs 4"]:
        """dx, dy, log zoom and rotation of each pair of frames, NaN where no camera motion explains it."""
        return camera_path(self.frames)

    @cached_property
    def flows(self) -> Sequence[Float[np.ndarray, "h w 2"]]:
        """Return the optical flow from each frame to the next at the video's own size, px."""
        return [self.flow(a, b) for a, b in pairwise(self.frames)]

    @cached_property
    def seen(self) -> Features | None:
        """`features`, which the network computes for these frames only once."""
        return None if self.features is None else _Once(self.features, self.frames)


class _Once:
    """Features that remember what they gave for one array of frames."""

    def __init__(self, features: Features, frames: Frames):
        self.name, self._features, self._frames = features.name, features, frames

    @cached_property
    def _found(self) -> Float[np.ndarray, "f d"]:
        return self._features(self._frames)

    def __call__(self, frames: Frames) -> Float[np.ndarray, "f d"]:
        return self._found if frames is self._frames else self._features(frames)
