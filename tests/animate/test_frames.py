"""Whatever a pipeline returns, to uint8 f h w 3."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.animate.frames import frames_of

VIDEO = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
UNIT = VIDEO.astype(np.float32) / np.float32(255)
PILS = [Image.fromarray(frame) for frame in VIDEO]
TENSOR = torch.from_numpy(UNIT).movedim(-1, 1)


@pytest.mark.parametrize(
    "frames",
    [VIDEO, UNIT, UNIT[None], [UNIT], PILS, [PILS], TENSOR, TENSOR[None], [TENSOR], TENSOR.double()],
    ids=["uint8", "np", "np batch", "list of np", "pil", "pil batch", "pt", "pt batch", "list of pt", "double"],
)
@pytest.mark.parametrize(
    "output", [lambda f: SimpleNamespace(frames=f), lambda f: SimpleNamespace(video=f), lambda f: (f,)]
)
def test_every_container(frames, output):
    found = frames_of(output(frames))
    assert found.dtype == np.uint8
    assert np.array_equal(found, VIDEO)


def test_values_out_of_range_are_clipped_and_rounded_to_nearest():
    video = np.full((1, 1, 1, 3), [-0.2, 1.7, 100.5 / 255 + 1e-4], dtype=np.float32)
    assert frames_of((video,)).ravel().tolist() == [0, 255, 101]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad):
    with pytest.raises(FloatingPointError, match="NaN"):
        frames_of((np.full((2, 4, 4, 3), bad, dtype=np.float32),))


@pytest.mark.parametrize("value", [None, 3, np.zeros((4, 4, 3)), torch.zeros(1, 3, 16, 4, 4)])
def test_what_is_no_video(value):
    with pytest.raises(ValueError, match="returned no video but"):
        frames_of(SimpleNamespace(frames=value))
