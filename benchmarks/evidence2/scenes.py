"""Held-out photos as scenes: every clip that the law of motion allows, from one first frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from unleak.data.synthetic import Motion, SyntheticClips


@dataclass(frozen=True)
class Scene:
    index: int
    photo: str
    videos: UInt8[np.ndarray, "k f h w 3"]
    """One for each motion of the law."""
    probabilities: Float[np.ndarray, " k"]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.videos[0, 0])

    def drawn(self, noise: int) -> UInt8[np.ndarray, "f h w 3"]:
        """A real clip: one motion drawn from the law."""
        rng = np.random.default_rng([self.index, noise])
        return self.videos[rng.choice(len(self.videos), p=self.probabilities)]


class Scenes:
    """The scenes of a folder of photos, made when asked for."""

    def __init__(self, photos: Path, protocol: dict[str, Any], side: int):
        self.clips = SyntheticClips(
            photos, size=side, num_frames=protocol["num_frames"], seed=protocol["seed"], length=10**6
        )
        self.motions = [Motion(dx, dy, log_zoom=zoom) for dx, dy, zoom in (one["motion"] for one in protocol["law"])]
        self.probabilities = np.array([one["probability"] for one in protocol["law"]])
        self.probabilities /= self.probabilities.sum()

    def __getitem__(self, index: int) -> Scene:
        videos = self.clips.alternatives(index, self.motions).numpy()
        return Scene(index, self.clips.clip(index).photo, videos, self.probabilities)
