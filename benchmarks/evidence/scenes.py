"""Held-out photos as scenes: all that a clip of each could be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from unleak.data.synthetic import Motion, SyntheticClips


@dataclass(frozen=True)
class Law:
    """Velocities (dx, dy), pixels per frame, and their probabilities."""

    velocities: Float[np.ndarray, "k 2"]
    probabilities: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, protocol: dict[str, Any]) -> "Law":
        return cls(
            np.array([entry["velocity"] for entry in protocol["law"]], dtype=float),
            np.array([entry["probability"] for entry in protocol["law"]], dtype=float),
        )

    def draw(self, seed: int) -> int:
        return int(np.random.default_rng(seed).choice(len(self.probabilities), p=self.probabilities))


@dataclass(frozen=True)
class Scene:
    """A first frame with one video for each velocity of the law."""

    index: int
    photo: str
    videos: UInt8[np.ndarray, "k f h w 3"]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.videos[0, 0])


class Scenes:
    """The scenes of one split, made when asked for."""

    def __init__(self, protocol: dict[str, Any], photos: Path, split: str):
        self.dataset = SyntheticClips(photos, seed=protocol["seed"], length=10**6)
        self.cameras = [Motion(*velocity) for velocity in Law.of(protocol).velocities]
        validation = set(protocol["validation"])
        self.of_split = (
            i for i in range(10**6) if (self.dataset.clip(i).photo in validation) == (split == "validation")
        )
        self.places: list[int] = []

    def __getitem__(self, index: int) -> Scene:
        while len(self.places) <= index:
            self.places.append(next(self.of_split))
        place = self.places[index]
        return Scene(index, self.dataset.clip(place).photo, self.dataset.alternatives(place, self.cameras).numpy())
