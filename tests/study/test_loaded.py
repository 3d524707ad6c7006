"""The studies take a loaded pipeline as well as a name."""

import pytest
from PIL import Image

import unleak
from unleak.animate.model import Loading
from unleak.animate.settings import Settings
from unleak.zoo.registry import MODELS, find_model

SMALL = {"height": 16, "width": 32, "num_frames": 3, "steps": 1}


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((48, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def load(*args, **kwargs):
        raise AssertionError("a pipeline was loaded")

    monkeypatch.setattr("unleak.zoo.hub.load", load)


def test_the_spec_of_a_loaded_pipeline(tiny_svd, tiny_folder):
    of_folder, of_pipe = find_model(tiny_folder), find_model(tiny_svd)
    for field in ("pipeline", "defaults", "size_multiple", "pixels_per_latent", "frame_multiple", "fps"):
        assert getattr(of_pipe, field) == getattr(of_folder, field), field
    both = [Settings.for_model(one, start="sigma=20").level(one)["sigma"] for one in (of_pipe, of_folder)]
    assert both[0] == both[1] == pytest.approx(20)
    assert find_model(unleak.load(tiny_folder, only=("vae",), device="cpu")).source == str(tiny_folder)
    assert find_model(unleak.load("nano", only=("vae",), device="cpu")) is MODELS["nano"]
    with pytest.raises(ValueError, match="a list is no model: give a name, a folder, a Hub id, or a loaded pipeline"):
        find_model([1])


def test_compare(tiny_svd, photo, nothing_is_loaded):
    done = unleak.compare(photo, ["a: start=1.0T", "b: start=sigma=20"], model=tiny_svd, **SMALL)
    assert [one.run.frames.shape for one in done.made] == [(3, 16, 32, 3)] * 2
    assert done.cases[0]["model"]["source"] == done.cases[1]["model"]["source"]


def test_diagnose(tiny_svd, photo, nothing_is_loaded):
    effort = {"clips": 1, "seeds": 1, "start": "0.60T", "quick": True, "num_frames": 3, "steps": 1}
    done = unleak.diagnose(tiny_svd, photos=photo, height=32, width=32, **effort)
    assert done.about["model"]["pipeline"] == "StableVideoDiffusionPipeline"


def test_how_it_is_loaded_does_not_go_with_it(tiny_svd, photo):
    with pytest.raises(ValueError, match="a loaded pipeline is used as it is"):
        unleak.compare(photo, ["a: start=1.0T"], model=tiny_svd, loading=Loading(dtype="bfloat16"), **SMALL)


def test_a_sweep_of_a_name(tiny_folder):
    call = {"height": 16, "width": 32, "num_frames": 3, "num_inference_steps": 1}
    done = unleak.sweep(tiny_folder, start="1.0T,sigma=20", image=Image.new("RGB", (32, 16)), **call)
    assert len(done.runs) == 2
