from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from unleak.measure.objects import Track, object_score, track

SIZE, FRAMES = 64, 9


@cache
def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (3 * SIZE, 3 * SIZE, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255)


def look(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack(
        [ndimage.map_coordinates(colour, [y, x], order=1) for colour in texture(seed).transpose(2, 0, 1)], -1
    )


def scene(velocity, *, camera=(0.0, 0.0), radius=10.0, start=(30.0, 33.0), vanish_at=FRAMES) -> np.ndarray:
    """A textured disc over a textured background, both moving steadily."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    frames = []
    for k in range(FRAMES):
        back = look(0, x + 64 - k * camera[0], y + 64 - k * camera[1])
        dx, dy = x - start[0] - k * velocity[0], y - start[1] - k * velocity[1]
        mask = (k < vanish_at) / (1 + np.exp(3 * (np.hypot(dx, dy) - radius)))
        frames.append(back + mask[..., None] * (look(1, dx + 90, dy + 90) - back))
    return np.round(np.clip(frames, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("camera", [(0.0, 0.0), (1.0, 0.0), (-1.3, 0.8)])
@pytest.mark.parametrize("velocity", [(0.0, 0.0), (1.0, 0.0), (-1.5, 0.5), (0.3, -1.2)])
def test_a_known_velocity_is_recovered_whatever_the_camera_does(velocity, camera):
    found = track(scene(velocity, camera=camera), (30.0, 33.0), 9.0)
    assert found.velocity == pytest.approx(velocity, abs=0.1)
    assert not found.vanished
    assert found.centres[0] == pytest.approx((30.0, 33.0), abs=1e-6)


@pytest.mark.parametrize(("vanish_at", "vanished"), [(FRAMES, False), (8, False), (4, True), (1, True)])
def test_an_object_that_is_gone_counts_as_gone(vanish_at, vanished):
    assert track(scene((1.0, 0.0), vanish_at=vanish_at), (30.0, 33.0), 9.0).vanished is vanished


def test_a_dissolving_object_is_no_moving_one():
    frames = scene((0.0, 0.0)).astype(float)
    noise = np.random.default_rng(3).integers(0, 256, frames.shape)
    share = np.linspace(0, 1, FRAMES)[:, None, None, None]
    found = track((frames * (1 - share) + noise * share).astype(np.uint8), (30.0, 33.0), 9.0)
    assert found.vanished
    assert np.hypot(*found.velocity) < 0.1  # while it can be seen, it stands still


def test_a_background_that_resembles_the_object_does_not_hide_that_it_is_gone():
    """Smooth pictures correlate somewhere by chance: at a threshold of 0.5 a fifth of these passed for there."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, (20, SIZE, SIZE, 3)), (0, 5, 5, 0))
    pictures = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    found = [track(np.stack([a, *[b] * 5]), (32.0, 32.0), 10.0) for a, b in pairwise(pictures)]
    assert np.mean([t.vanished for t in found]) > 0.9
    assert not any(track(np.stack([a] * 6), (32.0, 32.0), 10.0).vanished for a in pictures)


def test_nothing_but_noise_has_no_velocity():
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    found = track(frames, (30.0, 33.0), 9.0)
    assert found.vanished
    assert np.isnan(found.velocity).all()


def test_an_object_outside_is_refused():
    with pytest.raises(ValueError, match=r"radius 9 at \(80.0, 33.0\) is not in a first frame of 64x64"):
        track(scene((0.0, 0.0)), (80.0, 33.0), 9.0)


def there(dx: float) -> Track:
    return Track(np.stack([30 + dx * np.arange(FRAMES), np.full(FRAMES, 33.0)], 1), np.ones(FRAMES))


GONE = Track(np.full((FRAMES, 2), 30.0), np.r_[1.0, np.zeros(FRAMES - 1)])


@pytest.mark.parametrize(
    ("tracks", "right", "vanished", "error"),
    [
        ([there(1.0), there(1.2), there(0.0)], 2 / 3, 0, 0.2),
        ([there(1.0), GONE, there(0.9)], 2 / 3, 1 / 3, 0.1),
        ([there(1.0), GONE], 1 / 2, 1 / 2, np.inf),
        ([GONE, GONE], 0, 1, np.inf),
    ],
)
def test_a_vanished_object_is_a_failure_not_a_gap(tracks, right, vanished, error):
    score = object_score(tracks, np.tile([1.0, 0.0], (len(tracks), 1)))
    assert (score.right, score.vanished, score.error) == pytest.approx((right, vanished, error))


def test_a_vanished_object_is_not_right_even_where_it_should_rest():
    assert object_score([GONE], np.zeros((1, 2))).right == 0


def test_each_track_has_its_truth():
    with pytest.raises(ValueError, match="1 tracks and 2 velocities"):
        object_score([GONE], np.zeros((2, 2)))
