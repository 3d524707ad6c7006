"""The photo through H.264, whatever kind of image a pipeline is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from tests.attach.guided import ALL, GUIDED, NO_PHOTO
from tests.tiny.model import photo
from unleak.attach.seams import SEAMS
from unleak.attach.strategies.compress import Compress, compressed

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
NOT_HERE = {"helios", "helios-pyramid", "helios-distilled", "ltx2-dfr"}
OWN = {"ltx2", "ltx2-condition", "ltx2-in-context"}
TAKES = sorted(set(ALL) - NOT_HERE - NO_PHOTO)


def call(name: str, pipe: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    return ALL[name].call(pipe, **GUIDED.get(name, {}) | changes)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(same, a, b))


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 7), 60 + x % 90], -1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 96), (33, 47), (8, 8), (2, 3)])
def test_the_size_stays_and_more_compression_loses_more(shape: tuple[int, int]) -> None:
    pixels = smooth(*shape)
    losses = []
    for crf in (1, 33, 51):
        out = compressed(pixels, crf)
        assert out.shape == pixels.shape
        assert out.dtype == np.uint8
        assert np.array_equal(out, compressed(pixels, crf))
        losses.append(np.abs(out.astype(float) - pixels).mean())
    assert losses[0] < losses[2]
    assert losses[0] <= losses[1] <= losses[2]


@pytest.mark.parametrize("name", TAKES)
def test_the_pipeline_sees_the_compressed_photo(name: str, held: Callable[[str, Any, str], None]) -> None:
    pipe = ALL[name].build()
    plain = call(name, pipe)
    changed = call(name, unleak.apply(pipe, strategies=[Compress(51)]))
    assert not same(changed, plain)
    assert same(call(name, unleak.apply(pipe, strategies=[Compress(0)])), plain)
    assert same(call(name, unleak.remove(pipe)), plain)
    held(name, pipe, "compress")


def test_it_is_the_call_with_a_compressed_image() -> None:
    pipe, image = ALL["wan21"].build(), Image.fromarray(smooth(32, 32))
    by_hand = call("wan21", pipe, image=Image.fromarray(compressed(smooth(32, 32), 40)))
    ours = call("wan21", unleak.apply(pipe, strategies=[Compress(40)]), image=image)
    assert torch.equal(ours, by_hand)
    assert np.array_equal(np.asarray(image), smooth(32, 32))


class Echo:
    """A call that takes images in every form."""

    def __call__(self, image: Any = None, last_image: Any = None, height: Any = None, width: Any = None) -> None:
        pass


def given(image: Any, crf: int = 40, **arguments: Any) -> Any:
    call: dict[str, Any] = {"image": image, "last_image": None, **arguments}
    with Compress(crf).attached(None, next(iter(SEAMS.values())), call):
        return call["image"]


def test_each_kind_of_image_stays_of_its_kind() -> None:
    pixels, expected = smooth(32, 48), compressed(smooth(32, 48), 40)
    assert np.array_equal(given(pixels), expected)
    assert np.array_equal(np.asarray(given(Image.fromarray(pixels))), expected)
    assert np.array_equal(np.asarray(given([Image.fromarray(pixels)])[0]), expected)
    floats = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(given(floats), expected / 255, atol=1e-6)
    np.testing.assert_allclose(given(np.stack([floats] * 2)), np.stack([expected / 255] * 2), atol=1e-6)
    tensor = torch.from_numpy(floats).permute(2, 0, 1)
    torch.testing.assert_close(given(tensor), torch.from_numpy(expected).permute(2, 0, 1) / 255)
    signed = given((2 * tensor - 1).half()[None])
    assert signed.dtype == torch.float16
    torch.testing.assert_close(
        signed[0].float(), torch.from_numpy(expected).permute(2, 0, 1) / 127.5 - 1, atol=2e-3, rtol=0
    )
    with pytest.raises(ValueError, match="takes PIL images, arrays"):
        given("photo.jpg")
    with pytest.raises(ValueError, match="this call gives no image"):
        given(None)


def test_a_large_photo_is_scaled_down_first_and_keeps_its_shape() -> None:
    assert given(photo(320, 640), height=32, width=32).size == (64, 32)
    assert given(photo(16, 16), height=32, width=32).size == (16, 16)


def test_pipelines_that_compress_by_themselves_do_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.ltx2 import pipeline_ltx2_condition, pipeline_ltx2_image2video

    told: list[int] = []
    for module in (pipeline_ltx2_condition, pipeline_ltx2_image2video):
        plain = module.apply_image_conditioning_crf
        monkeypatch.setattr(
            module,
            "apply_image_conditioning_crf",
            lambda image, crf, plain=plain: told.append(crf) or plain(image, crf),
        )
    for name in ("ltx2", "ltx2-condition"):
        call(name, unleak.apply(ALL[name].build(), strategies=[Compress(44)]))
        assert set(told) == {44}
        told.clear()
    pipe = unleak.apply(ALL["ltx2"].build(), strategies=[Compress(44)])
    with pytest.raises(ValueError, match=r"gives image_crf 20, and Compress\(44\) is attached"):
        call("ltx2", pipe, image_crf=20)


@pytest.mark.parametrize("name", sorted(NO_PHOTO))
def test_a_call_without_a_photo_is_refused(name: str) -> None:
    pipe = ALL[name].build()
    with pytest.raises(ValueError, match=r"takes no argument named image|gives no image"):
        call(name, unleak.apply(pipe, strategies=[Compress()]))


def test_senseless_strengths_are_refused() -> None:
    for crf in (-1, 52):
        with pytest.raises(ValueError, match="crf from 0"):
            Compress(crf)


def test_conditions_of_an_unknown_kind_are_refused() -> None:
    @dataclass
    class Video:
        video: Any

    call: dict[str, Any] = {"conditions": [Video(1)], "image": None}
    with Compress().attached(None, next(iter(SEAMS.values())), call):
        assert call["conditions"] == [Video(1)]  # videos stay as they are
    with (
        pytest.raises(ValueError, match="does not know conditions"),
        Compress().attached(None, next(iter(SEAMS.values())), {"conditions": "x", "image": None}),
    ):
        pass
