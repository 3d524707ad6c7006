"""Causes of stillness that are none of leakage, on stand-ins for pipelines."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from unleak.study.diagnose.stillness import causes


class LTXImageToVideoPipeline(SimpleNamespace):
    pass


class WanImageToVideoPipeline(SimpleNamespace):
    pass


class Scheduler:
    pass


def found(pipe=None, settings=None, **more):
    pipe = pipe or WanImageToVideoPipeline()
    pipe.scheduler = Scheduler()
    given = {"motion": [1.0], "still_below": 0.3, "steps": 25} | more
    return {one.name: one for one in causes(pipe, settings or {}, {}, **given)}


@pytest.mark.parametrize(
    ("settings", "photos", "state"),
    [
        ({}, ["a.png"], "suspect"),
        ({}, ["a.jpg", "b.PNG"], "suspect"),
        ({}, ["a.jpg"], "unknown"),
        ({"image_crf": 33}, ["a.png"], "fine"),
    ],
)
def test_an_uncompressed_photo_on_ltx(settings, photos, state):
    photos = [Path(name) for name in photos]
    assert found(LTXImageToVideoPipeline(), settings, photos=photos)["photo"].state == state
    assert "photo" not in found(settings=settings, photos=photos)  # other models do not mind
    assert "photo" not in found(LTXImageToVideoPipeline(), settings)  # real clips are compressed


def test_sides_on_ltx():
    assert found(LTXImageToVideoPipeline(), {"width": 704, "height": 480})["sides"].state == "fine"
    assert found(LTXImageToVideoPipeline(), {"width": 700, "height": 480})["sides"].state == "suspect"
    assert "sides" not in found(settings={"width": 700, "height": 480})


def test_full_strength():
    assert found(settings={"strength": 1.0})["strength"].state == "suspect"
    assert found(settings={"strength": 0.9})["strength"].state == "fine"
    assert "strength" not in found()


def test_a_distilled_high_expert():
    def wan(**more):
        return WanImageToVideoPipeline(transformer_2=object(), **more)

    lora = {"source": "/models/Wan2.2-Lightning_high.safetensors"}
    assert found(wan(), loras=[lora])["high expert"].state == "suspect"
    assert "Wan2.2-Lightning_high.safetensors" in found(wan(), loras=[lora])["high expert"].text
    assert found(wan(), loras=[lora | {"expert": "low"}])["high expert"].state == "fine"
    assert found(wan(), loras=[{"source": "style.safetensors"}])["high expert"].state == "fine"
    assert found(wan(), {"guidance_scale": 1.0}, steps=4)["high expert"].state == "suspect"
    assert found(wan(), {"guidance_scale": 3.5}, steps=4)["high expert"].state == "fine"
    assert "high expert" not in found(loras=[lora])  # a model with one expert


def test_quantised_weights_of_a_distilled_model():
    network = SimpleNamespace(hf_quantizer=object())
    pipe = WanImageToVideoPipeline(components={"transformer": network}, name_or_path="org/wan-distilled-int8")
    assert "repeat one frame" in found(pipe)["quantisation"].text
    pipe.name_or_path = "org/wan"
    assert found(pipe)["quantisation"].state == "suspect"
    assert "repeat one frame" not in found(pipe)["quantisation"].text
    assert found()["quantisation"].state == "fine"


@pytest.mark.parametrize(
    ("prompt", "state"),
    [
        ("", "suspect"),
        (None, "suspect"),
        ("a red car, photorealistic, 8k", "suspect"),
        ("a red car drifts round the corner", "fine"),
        ("waves rolling to the shore", "fine"),
        ("the camera pulls back", "fine"),
    ],
)
def test_a_prompt_without_motion(prompt, state):
    assert found(settings={"prompt": prompt})["prompt"].state == state
    assert "prompt" not in found()
