"""Every metric on clips whose answer is known: what is motion counts as its length, what is none does not count."""

from functools import cache

import numpy as np
import pytest

from benchmarks.evidence.distribution import kernel_distance
from tests.measure.clips import as_rgb, clip
from unleak.measure.fidelity import first_frame_psnr, flicker, nearest_clip
from unleak.measure.motion import camera_pan, motion_score

FRAMES = 8
RNG = np.random.default_rng(0)
STILL = clip((64, 64), FRAMES)
OTHER = clip((64, 64), FRAMES, seed=9)
ORDER = [0, 5, 2, 7, 4, 1, 6, 3]


@cache
def pan(k: float) -> np.ndarray:
    return clip((64, 64), FRAMES, dx=k)


def noisy(frames: np.ndarray, levels: float) -> np.ndarray:
    return as_rgb(frames[..., 0] + np.random.default_rng(1).normal(0, levels, frames.shape[:3]))


def blinking(frames: np.ndarray, share: float) -> np.ndarray:
    gain = 1 + share / 2 * np.where(np.arange(FRAMES) % 2, 1, -1)
    return as_rgb(frames[..., 0] * gain[:, None, None])


def dissolved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, FRAMES)[:, None, None]
    return as_rgb(a[..., 0] * (1 - share) + b[..., 0] * share)


@pytest.mark.parametrize("k", [0.0, 0.3, 1.0, -2.0])
def test_a_steady_pan_is_its_speed(k):
    seen = camera_pan(pan(k))
    assert (seen.dx, seen.dy) == pytest.approx((k, 0), abs=0.01)
    assert seen.lost == 0
    assert seen.unsteadiness < 0.01


@pytest.mark.parametrize(
    ("frames", "tolerance"),
    [
        (STILL, 1e-9),
        (noisy(STILL, 5), 0.05),
        (noisy(STILL, 20), 0.2),
        (blinking(STILL, 0.1), 0.02),
        (blinking(STILL, 0.5), 0.05),
        (RNG.integers(0, 256, STILL.shape, dtype=np.uint8), 0),
    ],
    ids=["still", "noise 5", "noise 20", "flicker 10 %", "flicker 50 %", "nothing but noise"],
)
def test_noise_and_flicker_are_no_motion(frames, tolerance):
    seen = camera_pan(frames)
    assert np.hypot(seen.dx, seen.dy) <= tolerance


def test_what_the_score_is_fooled_by_is_written_down():
    """The numbers of its docstring, px per pair at 800x450; they are why the score never stands alone."""

    def per_pair(frames):
        return motion_score(frames).value / (FRAMES - 1)

    assert per_pair(pan(1.0)) == pytest.approx(12.4, abs=0.3)
    assert per_pair(noisy(STILL, 5)) == pytest.approx(5.7, abs=0.6)
    assert per_pair(blinking(STILL, 0.1)) == pytest.approx(1, abs=0.5)
    assert per_pair(RNG.integers(0, 256, STILL.shape, dtype=np.uint8)) == pytest.approx(24, abs=3)
    assert per_pair(pan(1.0)[ORDER]) > 2 * per_pair(pan(1.0))


def test_shuffled_frames_are_caught():
    straight, shuffled = camera_pan(pan(1.0)), camera_pan(pan(1.0)[ORDER])
    assert straight.unsteadiness < 0.01
    assert shuffled.unsteadiness > 2
    true = np.stack([pan(k) for k in (-1.0, 0.0, 1.0)])
    assert nearest_clip(pan(1.0), true).distance == 0
    assert nearest_clip(pan(1.0)[ORDER], true).distance > 10


def test_a_cut_is_lost_and_most_of_it_is_no_motion():
    assert camera_pan(np.concatenate([pan(1.0)[:4], OTHER[:4]])).lost == pytest.approx(1 / 7)
    cuts = np.concatenate([clip((64, 64), 1, seed=i) for i in range(20, 20 + FRAMES)])
    seen = camera_pan(cuts)
    assert seen.lost > 0.5
    assert (seen.dx, seen.dy) == (0, 0)


def test_a_dissolve_is_far_from_every_valid_clip():
    true = np.stack([pan(k) for k in (-1.0, 0.0, 1.0)])
    found = nearest_clip(dissolved(STILL, OTHER), true)
    assert found.last_frame > 30
    assert nearest_clip(noisy(pan(1.0), 5), true).last_frame < 6


def test_flicker_sees_what_blinks_and_not_what_moves():
    assert flicker(blinking(STILL, 0.1)) > 10
    assert flicker(STILL) == 0
    assert flicker(pan(1.0)) < 0.5
    assert flicker(noisy(STILL, 5)) < 0.5


def test_another_picture_is_not_the_first_frame():
    assert first_frame_psnr(noisy(STILL, 5), STILL[0]) == pytest.approx(20 * np.log10(255 / 5), abs=0.5)
    assert first_frame_psnr(OTHER, STILL[0]) < 15


def test_real_clips_lie_within_the_floor_and_others_beyond_it():
    rng = np.random.default_rng(3)
    real, more, shifted = rng.normal(size=(60, 4)), rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) + 1
    same, other = (kernel_distance(x, real, rng=rng) for x in (more, shifted))
    low, high = same.floor
    assert low < 0 < high
    assert low < same.value < high
    assert other.value > 3 * high
    assert other.floor == pytest.approx(same.floor, abs=0.02)
