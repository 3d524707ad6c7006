import numpy as np
import pytest
from scipy import ndimage

from unleak.measure.consistency import dynamic_degree, image_alignment, ssim, temporal_consistency, warping_error

RNG = np.random.default_rng(0)
WIDE = np.clip(ndimage.gaussian_filter(RNG.normal(size=(64, 160, 3)), (2, 2, 0)) * 300 + 128, 0, 255).astype(np.uint8)


def pan(speed, frames=8):
    return np.stack([WIDE[:, 60 - speed * k :][:, :64] for k in range(frames)])


class Known:
    """A flow that is told."""

    name = "known"

    def __init__(self, dx):
        self.dx = dx

    def __call__(self, a, b):
        sign = 1 if np.array_equal(a[:, : -abs(self.dx) or None], b[:, abs(self.dx) :]) else -1
        return np.broadcast_to(np.float32([sign * self.dx, 0]), (*a.shape[:2], 2))


def test_ssim_of_equal_different_and_shifted_pictures():
    (a,), (b,) = pan(0, 1), pan(7, 2)[1:]
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a, 255 - a) < 0.1
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    lighter = np.clip(a.astype(int) + 10, 0, 255).astype(np.uint8)
    assert ssim(a, b) < ssim(a, lighter) < 1


def test_consistency_and_alignment_by_features_and_without():
    class Colour:
        name = "mean colour"

        def __call__(self, frames):
            colour = frames.reshape(len(frames), -1, 3).mean(1)
            return colour / np.linalg.norm(colour, axis=1, keepdims=True)

    red, green = (np.full((1, 16, 16, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 200, 0)))
    still, cut = np.concatenate([red] * 4), np.concatenate([red, red, green, green])
    assert temporal_consistency(still, Colour()) == pytest.approx(1)
    assert temporal_consistency(cut, Colour()) == pytest.approx(2 / 3)
    assert image_alignment(cut, red[0], Colour()) == pytest.approx(0.5)
    assert temporal_consistency(pan(0)) == pytest.approx(1)
    assert temporal_consistency(pan(4)) < temporal_consistency(pan(1)) < 1
    assert image_alignment(pan(0), pan(0)[0]) == pytest.approx(1)


def test_what_only_moves_has_no_warping_error():
    assert warping_error(pan(3), Known(3)) == pytest.approx(0, abs=1e-6)
    assert warping_error(pan(0), Known(0)) == pytest.approx(0, abs=1e-6)
    lighter = pan(3).astype(int) + 10 * (np.arange(8) % 2)[:, None, None, None]
    assert warping_error(np.clip(lighter, 0, 255).astype(np.uint8)[:, :, :, :], Always(3)) == pytest.approx(10, abs=1)


class Always(Known):
    """The flow of a pan to the right, and back for pairs in turn."""

    calls = 0

    def __call__(self, a, b):
        self.calls += 1
        sign = -1 if self.calls % 2 else 1  # (b, a) is asked for first
        return np.broadcast_to(np.float32([sign * self.dx, 0]), (*a.shape[:2], 2))


def test_a_flow_does_not_depend_on_what_it_saw_before():
    """OpenCV's object keeps the coarsest scale of the smallest frames that it was ever given."""
    from unleak.measure.motion import DIS, motion_score

    noise = RNG.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    used = DIS()
    fresh = motion_score(noise, flow=used).value
    dynamic_degree(noise, 8, used)
    assert motion_score(noise, flow=used).value == fresh


@pytest.mark.parametrize(
    ("speed", "frames", "fps", "dynamic"),
    [
        (1, 16, 8, False),  # 6 px for 256: 1.5 px for 64
        (2, 16, 8, True),
        (1, 16, 24, True),  # every third frame
        (0, 16, 8, False),
        (2, 2, 8, True),
    ],
)
def test_dynamic_degree_by_its_threshold(speed, frames, fps, dynamic):
    class Measured:
        name = "of the frames"

        def __call__(self, a, b):
            taken = max(1, round(fps / 8))
            return np.full((*a.shape[:2], 2), (speed * taken, 0), np.float32)

    assert dynamic_degree(pan(0, frames), fps, Measured()) is dynamic


def test_a_quarter_of_the_pairs_has_to_move():
    class First:
        name = "the first pairs"

        def __init__(self, moving):
            self.left = moving

        def __call__(self, a, b):
            self.left -= 1
            flow = np.zeros((*a.shape[:2], 2), np.float32)
            flow[:, :4] = 9 if self.left >= 0 else 0  # more than the fastest 5 %
            return flow

    assert not dynamic_degree(pan(0, 16), 8, First(3))
    assert dynamic_degree(pan(0, 16), 8, First(4))
