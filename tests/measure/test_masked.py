import numpy as np
import pytest

from unleak.measure.masked import masked_motion
from unleak.measure.motion import motion_score


class Known:
    """A flow that is told: right by 3 in the left half, still in the right."""

    name = "known"

    def __call__(self, a, b):
        flow = np.zeros((*a.shape[:2], 2), np.float32)
        flow[:, : a.shape[1] // 2, 0] = 3
        return flow


STILL = np.full((4, 10, 16, 3), 100, np.uint8)
LEFT = np.zeros((10, 16), bool)
LEFT[:, :8] = True


@pytest.mark.parametrize(
    ("mask", "inside", "outside", "share"),
    [(LEFT, 9, 0, 0.5), (~LEFT, 0, 9, 0.5), (LEFT | True, 4.5, None, 1), (LEFT & False, None, 4.5, 0)],
)
def test_a_known_flow_is_averaged_on_either_side_and_summed_over_the_pairs(mask, inside, outside, share):
    motion = masked_motion(STILL, mask, flow=Known())
    assert (motion.inside, motion.outside, motion.share) == (inside, outside, share)
    assert motion.precision is None
    assert motion.estimator == "known at 800x450"


def test_a_moving_half_is_told_from_a_still_one():
    texture = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.repeat(texture[..., None], 3, -1)] * 3)
    left = np.zeros(texture.shape, bool)
    left[:, :80] = True
    for i in range(3):
        frames[i, :, :80] = np.roll(frames[0, :, :80], 2 * i, axis=1)
    motion = masked_motion(frames, left)
    assert motion.inside > 10 * motion.outside
    assert motion.precision == 1
    assert motion_score(frames).value == pytest.approx(
        motion.share * motion.inside + (1 - motion.share) * motion.outside
    )


def test_one_frame_has_no_motion():
    with pytest.raises(ValueError, match="not on 1"):
        masked_motion(STILL[:1], LEFT)
