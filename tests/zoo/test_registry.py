import json

import pytest

from unleak.zoo.registry import MODELS, find_model


def test_names_sources_and_hub_ids():
    assert find_model("svd-xt").defaults["num_frames"] == 25
    assert find_model("stabilityai/stable-video-diffusion-img2vid") is MODELS["svd"]


def test_defaults_fit_their_own_model():
    from unleak.animate.settings import Settings

    for spec in (MODELS["nano"], MODELS["svd"], MODELS["svd-xt"]):
        settings = Settings.for_model(spec)
        assert str(settings.start) == spec.start
        assert settings.level(spec)["sigma"] < spec.scheduler["sigma_max"]


def test_a_folder_says_its_own_sizes(tiny_folder):
    spec = find_model(tiny_folder)
    assert (spec.name, spec.size_multiple, spec.frame_multiple) == ("tiny", 16, 1)
    assert spec.defaults == {"height": 64, "width": 64, "num_frames": 4, "decode_chunk_size": 8}
    assert (spec.scheduler["sigma_min"], spec.scheduler["sigma_max"]) == (0.002, 700.0)
    assert spec.moments is None


def test_svds_own_files_mean_1024x576(tmp_path):
    (tmp_path / "unet").mkdir()
    index = {"_class_name": "StableVideoDiffusionPipeline", "unet": ["diffusers", "any"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    config = {"sample_size": 96, "num_frames": 25, "block_out_channels": [320, 640, 1280, 1280]}
    (tmp_path / "unet/config.json").write_text(json.dumps(config))
    spec = find_model(tmp_path)
    assert (spec.defaults["width"], spec.defaults["height"], spec.defaults["num_frames"]) == (1024, 576, 25)
    assert spec.size_multiple == 64


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        ("nanoo", None, "did you mean nano"),
        ("svdxt", None, "did you mean svd-xt"),
        ("dynamicrafter", None, "did you mean dynamicrafter-"),
        ("./missing", None, "is unknown"),
        ("folder", "", "needs the model_index.json"),
        ("folder", '{"_class', "damaged"),
    ],
)
def test_unknown_models_are_one_line(tmp_path, monkeypatch, name, index, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    if index:
        (tmp_path / "folder/model_index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model|folder") as caught:
        find_model(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
