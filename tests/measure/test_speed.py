import numpy as np
import pytest
from PIL import Image

from unleak.measure.motion import motion_score
from unleak.measure.speed import speed


def pan(dx, dy, size, frames=4):
    """A texture that moves by (dx, dy) px a frame."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    big = np.asarray(Image.fromarray(noise).resize((400, 400), Image.Resampling.BICUBIC))
    w, h = size
    return np.stack([big[100 - dy * k : 100 - dy * k + h, 100 - dx * k : 100 - dx * k + w] for k in range(frames)])


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (96, 160)])
@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (-2, 0), (0, 2)])
def test_it_is_in_pixels_of_the_video_whatever_its_shape(size, dx, dy):
    assert speed(pan(dx, dy, size)) == pytest.approx(np.hypot(dx, dy), rel=0.12)


def test_on_frames_of_the_scores_own_size_it_is_the_scores_mean():
    frames = pan(1, 0, (80, 45))
    large = np.stack([np.asarray(Image.fromarray(frame).resize((800, 450))) for frame in frames])
    assert speed(large) == pytest.approx(np.mean(motion_score(large).per_pair), rel=1e-6)


def test_a_still_does_not_move_and_one_frame_is_no_video():
    assert speed(pan(0, 0, (64, 64))) < 0.01
    with pytest.raises(ValueError, match="two or more frames, not on 1"):
        speed(pan(0, 0, (64, 64), frames=1))
