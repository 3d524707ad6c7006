"""Procedural clips of photos with known motion: a camera that pans, zooms and turns, and cut-outs that drift.

The velocity of a clip is drawn apart from its photo, so the first frame says nothing about it, and every clip carries
its true motion. Clip `i` of a given seed is always the same clip, in whatever order clips are asked for.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unleak.data.image import DAMAGED, MediaError

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_SUPERSAMPLE = 2  # frames are drawn at twice their size and averaged down, so that motion below a pixel is visible


@dataclass(frozen=True)
class Motion:
    """How content moves, per frame: `dx` and `dy` in pixels of the clip (right and down are positive), `log_zoom`
    (positive: it grows), `rotation` in radians (positive: it turns clockwise)."""

    dx: float = 0.0
    dy: float = 0.0
    log_zoom: float = 0.0
    rotation: float = 0.0

    @property
    def speed(self) -> float:
        """Pan speed in pixels per frame."""
        return math.hypot(self.dx, self.dy)


@dataclass(frozen=True)
class CutOut:
    """A soft piece of another photo; centre `x`, `y` in frame 0 and `radius` in pixels, `motion` on the screen."""

    x: float
    y: float
    radius: float
    motion: Motion


@dataclass(frozen=True)
class SyntheticClip:
    """One clip, uint8 `video`, and the truth about it."""

    video: UInt8[Tensor, "f h w 3"]
    camera: Motion
    objects: tuple[CutOut, ...]
    photo: str


@dataclass(frozen=True)
class MotionRange:
    """The law that motions are drawn from; speeds in pixels per frame, uniform from `min_speed` to `max_speed`.

    `directions` is the number of directions of a pan, evenly spaced from rightwards on: 2 is right or left, 4 adds down
    and up, 0 is any direction.

    A share `still` of the clips hardly moves (at most `still_speed`), as in web video. Of the clips that move, a share
    `zoom_share` zooms instead of panning: by `zoom` (log zoom per frame), in or out with equal chance. A share
    `object_share` of all clips has one cut-out, with a velocity of its own from the same law of pans.
    """

    max_speed: float = 1.5
    max_log_zoom: float = 0.015
    max_rotation: float = 0.012
    still: float = 0.15
    still_speed: float = 0.05
    min_speed: float = 0.0
    directions: int = 0
    object_share: float = 0.0
    zoom_share: float = 0.0
    zoom: float = 0.02

    def draw(self, rng: np.random.Generator) -> Motion:
        """Draw one camera motion."""
        angle = rng.uniform(0, 2 * math.pi)
        if self.directions:
            angle = 2 * math.pi * math.floor(angle / (2 * math.pi) * self.directions) / self.directions
        dx, dy = math.cos(angle), math.sin(angle)
        if rng.random() < self.still:
            speed = rng.uniform(0, self.still_speed)
            return Motion(speed * dx, speed * dy)
        if self.zoom_share and rng.random() < self.zoom_share:
            return Motion(log_zoom=self.zoom if rng.random() < 0.5 else -self.zoom)
        speed = rng.uniform(self.min_speed, self.max_speed)
        log_zoom = rng.uniform(-self.max_log_zoom, self.max_log_zoom)
        rotation = rng.uniform(-self.max_rotation, self.max_rotation)
        return Motion(speed * dx, speed * dy, log_zoom, rotation)


class SyntheticClips:
    """A map-style dataset of `length` clips made from the photos of a folder.

    `photos` is a folder; every image directly in it is used, in sorted order. `size` is the side of a frame in pixels,
    `fps` and `motion_bucket_id` are constant: they must not tell the network the hidden motion.
    """

    def __init__(
        self,
        photos: str | Path,
        *,
        size: int = 64,
        num_frames: int = 12,
        seed: int = 0,
        length: int = 10_000,
        motion: MotionRange | None = None,
        fps: float = 6.0,
        motion_bucket_id: float = 127.0,
    ):
        folder = sorted(Path(photos).iterdir())
        self.paths = [p for p in folder if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file()]
        if not self.paths:
            raise ValueError(
                f"no photo in {photos}: expected at least one of {', '.join(sorted(PHOTO_SUFFIXES))} there"
            )
        self.size, self.num_frames, self.seed, self.length = size, num_frames, seed, length
        self.motion = motion or MotionRange()
        self.fps, self.motion_bucket_id = fps, motion_bucket_id

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.clip(index)
        return {
            "video": clip.video,
            "fps": self.fps,
            "motion_bucket_id": self.motion_bucket_id,
            "velocity": torch.tensor([clip.camera.dx, clip.camera.dy]),
            "name": f"{clip.photo}#{index}",
        }

    def clip(self, index: int) -> SyntheticClip:
        """Make clip `index` with its true motion. Raises IndexError outside 0 .. length - 1."""
        rng = self._rng(index)
        camera = self.motion.draw(rng)
        photo = int(rng.integers(len(self.paths)))
        pyramid = self._pyramids[photo]
        scene = self._camera_frames(pyramid, camera, self._place(pyramid, [camera], rng))
        objects: tuple[CutOut, ...] = ()
        if rng.random() < self.motion.object_share:
            other = (photo + int(rng.integers(1, max(len(self.paths), 2)))) % len(self.paths)
            scene, cut_out = self._with_cut_out(scene, self._pyramids[other], rng)
            objects = (cut_out,)
        return SyntheticClip(_finished(scene), camera, objects, self.paths[photo].stem)

    def alternatives(self, index: int, cameras: Sequence[Motion]) -> UInt8[Tensor, "k f h w 3"]:
        """Show one scene under each of `cameras`: what a photo can turn into, all from the same first frame.

        Photo and scale are those of clip `index`; the crop leaves room for every camera, so it may lie elsewhere.
        """
        rng = self._rng(index)
        self.motion.draw(rng)
        pyramid = self._pyramids[int(rng.integers(len(self.paths)))]
        place = self._place(pyramid, cameras, rng)
        return torch.stack([_finished(self._camera_frames(pyramid, camera, place)) for camera in cameras])

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        key = hashlib.sha256(f"{self.seed}/{index}".encode()).digest()
        return np.random.default_rng(int.from_bytes(key[:8], "little"))

    @cached_property
    def _pyramids(self) -> list[list[Float[Tensor, "3 _ _"]]]:
        """Read every photo at full, half, quarter ... size, down to the size drawn: a wide view must not alias."""
        pyramids = []
        for path in self.paths:
            levels = [torch.from_numpy(_pixels(path)).permute(2, 0, 1).float()]
            while min(levels[-1].shape[1:]) >= 2 * _SUPERSAMPLE * self.size:
                levels.append(F.avg_pool2d(levels[-1], 2))
            pyramids.append(levels)
        return pyramids

    def _place(
        self, pyramid: list[Float[Tensor, "3 _ _"]], cameras: Sequence[Motion], rng: np.random.Generator
    ) -> tuple[float, Float[np.ndarray, " 2"]]:
        """Choose photo pixels per drawn pixel and the middle of frame 0 such that no camera leaves the photo."""
        side = self.size * _SUPERSAMPLE
        corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * side / 2
        reach = np.concatenate([
            centres[:, None] + scales[:, None, None] * np.einsum("kij,cj->kci", turns, corners)
            for centres, scales, turns in (self._path(camera) for camera in cameras)
        ])  # fmt: skip
        low, high = reach.min((0, 1)), reach.max((0, 1))
        height, width = pyramid[0].shape[1:]
        widest = min((width - 2) / (high[0] - low[0]), (height - 2) / (high[1] - low[1]))
        scale = widest * math.exp(rng.uniform(math.log(0.5), 0.0))
        free = np.array([width - 1, height - 1]) - scale * (high - low)
        return scale, rng.uniform(0, 1, 2) * free - scale * low

    def _path(self, camera: Motion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return centres, scales and turns.

        Frame k is the photo at origin + scale (centre_k + scale_k R_k (pixel - middle)).
        """
        n = self.num_frames
        velocity = np.array([camera.dx, camera.dy]) * _SUPERSAMPLE
        scales = np.exp(-camera.log_zoom * np.arange(n))
        turns = np.array([_rotation(-camera.rotation * k) for k in range(n)])
        steps = [-scale * turn @ velocity for scale, turn in zip(scales[:-1], turns[:-1], strict=True)]
        return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0).reshape(-1, 2)]), scales, turns

    def _camera_frames(
        self, pyramid: list[Float[Tensor, "3 _ _"]], camera: Motion, place: tuple[float, Float[np.ndarray, " 2"]]
    ) -> Float[Tensor, "f 3 hh ww"]:
        scale, origin = place
        level = min(max(math.floor(math.log2(max(scale, 1.0))), 0), len(pyramid) - 1)
        image, shrink = pyramid[level], 2.0**level
        grid = _pixel_grid(self.size * _SUPERSAMPLE)
        views = []
        for centre, zoom, turn in zip(*self._path(camera), strict=True):
            at = origin + scale * centre
            linear = scale * zoom * turn
            views.append(
                _sample(image, (grid @ torch.from_numpy(linear.T).float() + torch.from_numpy(at).float()) / shrink)
            )
        return torch.stack(views)

    def _with_cut_out(
        self, scene: Float[Tensor, "f 3 hh ww"], pyramid: list[Float[Tensor, "3 _ _"]], rng: np.random.Generator
    ) -> tuple[Float[Tensor, "f 3 hh ww"], CutOut]:
        side = self.size * _SUPERSAMPLE
        motion = self.motion.draw(rng)
        motion = Motion(motion.dx, motion.dy)
        radius = rng.uniform(0.14, 0.26) * self.size
        # The path's midpoint lies near the middle of the frame, so that the object is in view for the whole clip.
        middle = self.size / 2 + rng.uniform(-0.15, 0.15, 2) * self.size
        start = middle - np.array([motion.dx, motion.dy]) * (self.num_frames - 1) / 2
        waves = rng.normal(0, 0.12, 4)
        image = pyramid[-1]
        height, width = image.shape[1:]
        source = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height])
        grid = _pixel_grid(side) + (side - 1) / 2
        frames = []
        for k, frame in enumerate(scene):
            centre = (start + np.array([motion.dx, motion.dy]) * k) * _SUPERSAMPLE
            offset = grid - torch.from_numpy(centre).float()
            angle = torch.atan2(offset[..., 1], offset[..., 0])
            outline = 1 + sum(
                float(a) * torch.cos((2 + i // 2) * angle + (math.pi / 2) * (i % 2)) for i, a in enumerate(waves)
            )
            mask = torch.sigmoid(1.5 * (radius * _SUPERSAMPLE * outline - offset.norm(dim=-1)))
            texture = _sample(image, offset + torch.from_numpy(source).float())
            frames.append(frame + mask * (texture - frame))
        return torch.stack(frames), CutOut(float(start[0]), float(start[1]), float(radius), motion)


def _pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a photo as it is stored. Raises MediaError for one that is damaged or too large."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return np.asarray(image.convert("RGB")).copy()
    except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = " ".join(str(error).split())
        raise MediaError(f"{path}: not a photo that can be read ({reason}); export it again or move it away") from error


def _finished(scene: Float[Tensor, "f 3 hh ww"]) -> UInt8[Tensor, "f h w 3"]:
    video = F.avg_pool2d(scene, _SUPERSAMPLE).clamp(0, 255).round().to(torch.uint8)
    return video.permute(0, 2, 3, 1).contiguous()


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _pixel_grid(side: int) -> Float[Tensor, "h w 2"]:
    """Return the pixel centres (x, y) relative to the middle of the frame."""
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1)


def _sample(image: Float[Tensor, "3 h w"], at: Float[Tensor, "hh ww 2"]) -> Float[Tensor, "3 hh ww"]:
    """Sample an image bilinearly at pixel coordinates (x, y), clamped at the border."""
    height, width = image.shape[1:]
    unit = (at + 0.5) * 2 / torch.tensor([width, height], dtype=at.dtype) - 1
    return F.grid_sample(image[None], unit[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
