import numpy as np
import pytest

from unleak.measure.fidelity import first_frame_psnr, flicker, nearest_clip, sharpness

RNG = np.random.default_rng(0)


def pan(speed: int, frames: int = 8) -> np.ndarray:
    canvas = np.random.default_rng(1).integers(40, 215, (32, 96, 3), dtype=np.uint8)
    return np.stack([canvas[:, 32 - speed * k : 64 - speed * k] for k in range(frames)])


def test_first_frame_against_its_definition():
    video = pan(1)
    assert first_frame_psnr(video, video[0]) == np.inf
    assert first_frame_psnr(video, video[0] + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))


def test_flicker_is_not_motion():
    still, steady = pan(0), np.stack([np.full((8, 8, 3), 10 * k, dtype=np.uint8) for k in range(6)])
    assert flicker(still) == flicker(steady) == 0
    blinking = still.copy()
    blinking[::2] += 10  # +-5 around its mean: second differences of +-20
    assert flicker(blinking) == pytest.approx(20)
    assert flicker(pan(1)) < 3
    with pytest.raises(ValueError, match="three frames or more, not 2"):
        flicker(still[:2])


def test_the_nearest_clip_is_the_true_one_and_dissolution_is_far_from_all():
    candidates = np.stack([pan(v) for v in (-1, 0, 1)])
    noise = RNG.normal(0, 5, candidates[2].shape)
    noisy = np.clip(candidates[2] + noise, 0, 255).astype(np.uint8)
    found = nearest_clip(noisy, candidates)
    assert found.index == 2
    assert found.distance == pytest.approx(5, rel=0.1)
    shuffled = candidates[2][[0, 5, 2, 7, 4, 1, 6, 3]]
    share = np.linspace(0, 1, 8)[:, None, None, None]
    dissolved = (pan(1) * (1 - share) + pan(0)[:, ::-1, ::-1] * share).astype(np.uint8)
    for broken in (shuffled, dissolved, candidates[2][::-1]):
        assert nearest_clip(broken, candidates).distance > 4 * found.distance


def test_sharpness():
    assert (sharpness(np.full((3, 4, 5, 3), 7, dtype=np.uint8)) == 0).all()
    stripes = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 30
    assert sharpness(stripes) == pytest.approx([30, 30])
