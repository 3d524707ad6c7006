"""Known motion of an analytic texture, evaluated where each pixel came from: exact at any sub-pixel step."""

import sys

import numpy as np
import pytest

from tests.measure.clips import as_rgb, clip
from unleak.measure.motion import ESTIMATOR, camera_motion, motion_score


def edge_error(frames, dx=0.0, dy=0.0, log_zoom=0.0, rotation=0.0):
    """Largest error of any pair, all four in pixels: zoom and rotation at the middle of the longer edge."""
    radius = max(frames.shape[1:3]) / 2
    return np.abs((camera_motion(frames) - (dx, dy, log_zoom, rotation)) * (1, 1, radius, radius)).max()


MOTIONS = [
    {},
    {"dx": 0.1},
    {"dx": -0.25, "dy": 0.4},
    {"dx": 1.0},
    {"dx": 2.5, "dy": -1.0},
    {"dy": 6.0},
    {"log_zoom": 0.02},
    {"log_zoom": -0.05},
    {"rotation": 0.02},
    {"rotation": -0.08},
    {"dx": 1.5, "dy": 0.7, "log_zoom": 0.02, "rotation": -0.02},
]


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (256, 256)])
@pytest.mark.parametrize("motion", MOTIONS, ids=str)
def test_camera_motion_is_recovered_to_a_hundredth_of_a_pixel(size, motion):
    assert edge_error(clip(size, 3, **motion), **motion) < 0.01


def test_what_moves_otherwise_and_changes_of_brightness_are_let_go():
    frames = clip((64, 64), 3, dx=1.0, seed=1)
    for i, frame in enumerate(frames):  # a quarter of the picture moves against the camera
        frame[16 + i : 48 + i, 20 - 2 * i : 52 - 2 * i] = clip((32, 32), 1, seed=2)[0]
    assert edge_error(frames, dx=1.0) < 0.02
    flicker = clip((64, 64), 3, dx=1.0) * np.array([0.8, 0.95, 0.7])[:, None, None, None]
    assert edge_error(flicker.round().astype(np.uint8), dx=1.0) < 0.02


@pytest.mark.parametrize(("levels", "tolerance"), [(5, 0.1), (30, 0.6)])
def test_noise_leaves_the_camera(levels, tolerance):
    frames = clip((64, 64), 5, dx=1.0)
    noise = np.random.default_rng(0).normal(0, levels, frames.shape[:3])
    assert edge_error(as_rgb(frames[..., 0] + noise), dx=1.0) < tolerance


@pytest.mark.parametrize(
    "frames",
    [
        np.full((3, 64, 64, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8),
        np.concatenate([clip((256, 256), 1, seed=i) for i in range(3)]),
    ],
    ids=["blank", "noise", "cuts"],
)
def test_no_camera_to_speak_of_is_nan(frames):
    assert np.isnan(camera_motion(frames)).all()


@pytest.mark.parametrize(("size", "tolerance"), [((64, 64), 0.03), ((256, 256), 0.01)])
@pytest.mark.parametrize("k", [1.0, 2.5, -4.0])
def test_score_of_a_pan_is_its_length_at_800x450(size, tolerance, k):
    height, width = size
    for step, scale in (("dx", 800 / width), ("dy", 450 / height)):
        score = motion_score(clip(size, 4, **{step: k}))
        assert score.value == pytest.approx(3 * abs(k) * scale, rel=tolerance)
        assert score.value == pytest.approx(sum(score.per_pair))
        assert (len(score.per_pair), score.estimator) == (3, ESTIMATOR)


def test_a_still_has_no_motion():
    frames = clip((64, 64), 4)
    assert motion_score(frames).value == 0
    assert np.abs(camera_motion(frames)).max() < 1e-9


@pytest.mark.parametrize("measure", [motion_score, camera_motion])
@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, 32, 32, 3), "two or more frames, not on 1"),
        ((0, 32, 32, 3), "two or more frames, not on 0"),
        ((3, 32, 32, 4), r"on RGB frames .*, not on an array of shape \[3, 32, 32, 4\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, shape, reason):
    with pytest.raises(ValueError, match=reason):
        measure(np.zeros(shape, np.uint8))


def test_camera_motion_needs_sixteen_pixels():
    with pytest.raises(ValueError, match="16 pixels or more"):
        camera_motion(np.zeros((2, 15, 64, 3), np.uint8))


@pytest.mark.parametrize(("measure", "module"), [(motion_score, "cv2"), (camera_motion, "scipy.ndimage")])
def test_a_missing_extra_is_named(monkeypatch, measure, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unleak\[evaluate\]'$"):
        measure(np.zeros((2, 16, 16, 3), np.uint8))
