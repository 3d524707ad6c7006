"""How much a video moves: the paper's motion score, and the camera's own motion where it can be recovered."""

from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

SCORE_SIZE = (800, 450)  # width, height: every score is in pixels of this size, whatever the video's own


@runtime_checkable
class Flow(Protocol):
    """An optical flow: where the content of frame `a` is found in frame `b`, in pixels to the right and down."""

    name: str
    """Method and weights, for people. Scores of different names cannot be compared."""

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 2"]:
        """Return the flow from `a` to `b`."""
        ...


class DIS:
    """OpenCV's dense inverse search with the preset "medium": fast, and without weights."""

    name = "OpenCV DIS (medium)"

    def __init__(self) -> None:
        self._cv2 = _import("cv2")

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 2"]:
        """Return the flow from `a` to `b`."""
        # A new object each time, which costs nothing: one that has seen small frames loses its coarse scales for good.
        flow = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return flow.calc(*(self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY) for frame in (a, b)), None)


_RESIZED = "at {}x{}".format(*SCORE_SIZE)
ESTIMATOR = f"{DIS.name} {_RESIZED}"
_CAMERA_SIZE = 128  # px


@dataclass(frozen=True)
class MotionScore:
    """How much a video moves, by one optical flow."""

    value: float
    """Mean length of the flow, summed over the pairs of adjacent frames, px at 800x450: the paper's score."""
    per_pair: tuple[float, ...]
    """The terms of that sum."""
    estimator: str
    """The flow and the size at which it is computed."""
    speed: float
    """Mean length of the same flow in px of the video itself per frame."""


def motion_score(frames: UInt8[np.ndarray, "f h w c"], *, flow: Flow | None = None) -> MotionScore:
    """Return the motion score of `frames` (uint8 RGB, [f h w 3], two frames or more; paper, section 5.1).

    The frames are resized to 800x450; the length of the optical flow between adjacent frames is averaged over the
    pixels and summed over the pairs. The paper uses RAFT: pass `flow=Raft()` (`unleak.measure.raft`) where torchvision
    and weights are installed. The default is DIS. Compare only scores of the same `estimator`.

    The score measures change, not good motion. With DIS on 64x64 textures, a pan of 1 px/frame scores 12.4 per pair,
    but a still image under noise of 5 grey levels scores 5.7, a dissolve into another picture over 8 frames up to 5,
    independent noise 24, and a flicker of 10 % in brightness 1. `camera_pan` tells these apart. The score
    underestimates slow motion in small videos: a quarter pixel per frame at 64x64 by 14 %.
    """
    _check(frames)
    cv2 = _import("cv2")
    flow = flow or DIS()
    _, height, width, _ = frames.shape
    back = np.array([width / SCORE_SIZE[0], height / SCORE_SIZE[1]])
    resized = [cv2.resize(frame, SCORE_SIZE, interpolation=cv2.INTER_LINEAR) for frame in frames]
    per_pair, speeds = [], []
    for a, b in pairwise(resized):
        found = flow(a, b)
        per_pair.append(float(np.linalg.norm(found, axis=-1).mean()))
        speeds.append(float(np.linalg.norm(found * back, axis=-1).mean()))
    return MotionScore(sum(per_pair), tuple(per_pair), f"{flow.name} {_RESIZED}", float(np.mean(speeds)))


@dataclass(frozen=True)
class Pan:
    """How the camera pans over a whole clip, in pixels per frame, right and down, and how much of it was explained."""

    dx: float
    dy: float
    lost: float
    """Share of the pairs of frames that no camera motion explains, as in dissolves, cuts and noise."""
    unsteadiness: float
    """Root mean square distance of the explained pairs from (dx, dy), px/frame: 0 for a steady pan, large where frames
    are shuffled or the picture shakes."""


def camera_pan(frames: UInt8[np.ndarray, "f h w c"]) -> Pan:
    """Return the median of `camera_motion` over the pairs; (0, 0) where more than half of the pairs are lost.

    A still image that dissolves, flickers or is noisy does not pan, however high its motion score.

    Measured on 40 clips of photos that pan by up to 1.5 px/frame (64x64, 12 frames): the error is at most 0.006
    px/frame. After a round trip through the autoencoder of the first nano model it is at most 0.02 for half of the
    clips, 0.08 for nine in ten and 0.18 for all. No pair is lost.
    """
    pairs = camera_motion(frames)[:, :2]
    there = pairs[np.isfinite(pairs).all(1)]
    lost = 1 - len(there) / len(pairs)
    dx, dy = np.median(there, axis=0) if lost <= 0.5 else (0.0, 0.0)
    spread = float(np.sqrt(np.square(there - (dx, dy)).sum(1).mean())) if len(there) else 0.0
    return Pan(float(dx), float(dy), lost, spread)


def camera_motion(frames: UInt8[np.ndarray, "f h w c"]) -> Float[np.ndarray, "pairs 4"]:
    """Return the motion of the picture as a whole between adjacent frames: dx, dy, log zoom, rotation of each pair.

    `frames` are uint8 RGB, [f h w 3], with 16 pixels or more on a side. dx and dy say how far the content at the centre
    of the frame moves to the right and down, in pixels of `frames` per frame. Log zoom is positive where the content
    grows. Rotation is in radians, positive for clockwise as seen. A pair that no such motion explains (a blank frame,
    noise, most cuts) is NaN: less than half of either frame would be in both, or the aligned frames correlate by less
    than 0.3.

    The similarity is fitted to the intensities, coarse to fine, with weights that ignore what moves otherwise; gain and
    offset of the brightness are fitted with it. On clean textures it is correct to 0.01 px at the edge of the frame,
    under noise of 30 grey levels to 0.6 px at 64x64 and 0.13 px at 256x256. It fails where an object that covers more
    than about a quarter of a 64x64 frame, or that has most of the texture, moves on its own, and where the picture
    jumps by more than an eighth of its width. A dissolve of 64x64 frames over 8 frames reads as up to 0.8 px per pair.
    """
    _check(frames, smallest=16)
    gray = frames.astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.array([_similarity(a, b) for a, b in pairwise(gray)])


def camera_path(frames: UInt8[np.ndarray, "f h w c"]) -> Float[np.ndarray, "pairs 4"]:
    """Return `camera_motion` in pixels of `frames`, measured on frames that are shrunk to 128 to 256 px on a side.

    At full size a large frame takes seconds per pair. Frames under 16 px are not measured: every pair is NaN.
    """
    _, h, w, _ = frames.shape
    if min(h, w) < 16:
        return np.full((len(frames) - 1, 4), np.nan)
    shrink = max(1, min(h, w) // _CAMERA_SIZE)
    top, left = (side % shrink // 2 for side in (h, w))  # the centre stays the centre
    cut = frames[:, top : top + h // shrink * shrink, left : left + w // shrink * shrink]
    if shrink > 1:
        blocks = [rearrange(frame, "(h a) (w b) c -> h w c a b", a=shrink, b=shrink).mean((3, 4)) for frame in cut]
        cut = np.stack([block.round().astype(np.uint8) for block in blocks])
    return camera_motion(cut) * (shrink, shrink, 1, 1)


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """Fit a robust similarity with b(zoom p + shift) = a(p); positions are complex numbers x + iy from the centre.

    Gauss-Newton with the mean of both frames' gradients (Benhimane and Malis 2004: second-order convergence) and
    Geman-McClure weights.
    """
    ndimage = _import("scipy.ndimage")
    height, width = a.shape
    centre = complex((width - 1) / 2, (height - 1) / 2)
    zoom, shift, gain, offset = 1 + 0j, 0j, 1.0, float(np.median(a - b))
    stride = 1 << int(np.log2(min(height, width) / 16))
    while stride:
        first = slice(stride // 2, None, stride)
        coarse_a, coarse_b = (ndimage.gaussian_filter(x, 0.8 * stride, mode="nearest")[first, first] for x in (a, b))
        spline = ndimage.spline_filter(coarse_b, mode="mirror")
        y, x = np.mgrid[:height, :width][:, first, first]
        p = x + 1j * y - centre
        grad_a = _gradient(coarse_a, stride)
        for _ in range(30):
            q = zoom * p + shift + centre
            warped = ndimage.map_coordinates(
                spline, [(axis - stride // 2) / stride for axis in (q.imag, q.real)], mode="mirror", prefilter=False
            )
            in_view = (q.real >= 0) & (q.real <= width - 1) & (q.imag >= 0) & (q.imag <= height - 1)
            in_view = ndimage.binary_erosion(in_view)  # the gradient at the rim is not the picture's
            if in_view.mean() < 0.3:
                return (np.nan,) * 4
            value, target = warped[in_view], coarse_a[in_view]
            g = ((grad_a + gain * _gradient(warped, stride)) / 2)[in_view]
            turned = g * p[in_view].conj()
            jacobian = np.stack(
                [g.real, g.imag, turned.real, turned.imag, np.ones_like(value), value - value.mean()], 1
            )
            residual = gain * value + offset - target
            scale = 2.4 * 1.4826 * np.median(abs(residual)) + 0.25  # grey levels; rounding alone leaves about 0.25
            weighted = jacobian / (1 + (residual / scale) ** 2)[:, None] ** 2
            hessian, slope = weighted.T @ jacobian, weighted.T @ residual
            unit = np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny))
            # A direction the picture says nothing about (along a stripe) is left alone.
            step = -np.linalg.lstsq(hessian / unit / unit[:, None], slope / unit, rcond=1e-6)[0] / unit
            move, turn = complex(step[0], step[1]), complex(step[2], step[3])
            shift, zoom = shift + zoom * move, zoom * (1 + turn)
            gain, offset = gain + step[5], offset + step[4] - step[5] * value.mean()
            if max(abs(move), abs(turn) * abs(centre)) < 1e-3:
                break
        stride //= 2
    explained = np.ptp(target) > 1e-6 and np.ptp(value) > 1e-6 and np.corrcoef(target, value)[0, 1] > 0.3
    if in_view.mean() * min(1, abs(zoom) ** 2) < 0.5 or not explained:
        return (np.nan,) * 4
    return shift.real, shift.imag, float(np.log(abs(zoom))), float(np.angle(zoom))


def _gradient(image: np.ndarray, spacing: float) -> np.ndarray:
    down, right = np.gradient(image, spacing)
    return right + 1j * down


def _check(frames: np.ndarray, smallest: int = 1) -> None:
    f, h, w, c = frames.shape
    if f < 2:
        raise ValueError(f"motion is measured on two or more frames, not on {f}")
    if c != 3 or min(h, w) < smallest:
        raise ValueError(
            f"motion is measured on RGB frames [f h w 3] of {smallest} pixels or more on a side, "
            f"not on an array of shape {list(frames.shape)}"
        )


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"measuring motion needs {error.name}, which is not installed: pip install 'unleak[evaluate]'",
            name=error.name,
        ) from error
