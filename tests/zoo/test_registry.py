import json

import pytest

from unleak.zoo.registry import MODELS, find_model


def test_names_sources_and_hub_ids():
    assert find_model("svd-xt").num_frames == 25
    assert find_model("stabilityai/stable-video-diffusion-img2vid") is MODELS["svd"]
    other = find_model("someone/their-svd")
    assert (other.source, other.revision, other.moments, other.width) == ("someone/their-svd", None, None, 1024)


def test_defaults_fit_their_own_model():
    from unleak.zoo.sample import Settings

    for spec in MODELS.values():
        settings = Settings.for_model(spec)
        assert settings.start == spec.start
        assert settings.level(spec)["sigma"] < spec.sigma_max


def test_a_folder_says_its_own_sizes(tiny_folder):
    spec = find_model(tiny_folder)
    assert (spec.name, spec.height, spec.width, spec.num_frames, spec.size_multiple) == ("tiny", 64, 64, 4, 16)
    assert (spec.sigma_min, spec.sigma_max) == (0.002, 700.0)
    assert spec.moments is None


def test_svds_own_files_mean_1024x576(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableVideoDiffusionPipeline"}))
    config = {"sample_size": 96, "num_frames": 25, "block_out_channels": [320, 640, 1280, 1280]}
    (tmp_path / "unet/config.json").write_text(json.dumps(config))
    spec = find_model(tmp_path)
    assert (spec.width, spec.height, spec.num_frames, spec.size_multiple) == (1024, 576, 25, 64)


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        ("nanoo", None, "did you mean nano"),
        ("svdxt", None, "did you mean svd-xt"),
        ("dynamicrafter", None, "give one of nano, svd, svd-xt"),
        ("./missing", None, "is unknown"),
        ("folder", "", "needs the model_index.json"),
        ("folder", '{"_class_name": "WanImageToVideoPipeline"}', "a WanImageToVideoPipeline; this version"),
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
