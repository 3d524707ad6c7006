"""examples/extend/family.py: a family from outside the package serves every command that one of ours does."""

import json
import shutil
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from unleak.cli import main
from unleak.core.process import Level
from unleak.data.video import read_video, write_video
from unleak.families.registry import MODELS, Family, register_family, unregister_family
from unleak.families.spec import ModelSpec
from unleak.families.view import view_of

EXAMPLE = Path(__file__).parents[2] / "examples/extend/family.py"


@pytest.fixture(scope="module")
def drift():
    """The example, imported as a package's module would be."""
    spec = spec_from_file_location("drift_example", EXAMPLE)
    module = module_from_spec(spec)
    sys.modules["drift_example"] = module
    spec.loader.exec_module(module)
    yield module
    unregister_family("drift")
    del sys.modules["drift_example"]


@pytest.fixture(scope="module")
def folder(drift, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "drift"
    drift.tiny().save_pretrained(path)
    return path


def test_it_is_listed_by_name(drift, capfd):
    assert MODELS["drift"].pipeline == "DriftPipeline"
    assert main(["models", "--filter", "drift"]) == 0
    assert "a toy: 8 frames of 64x64" in capfd.readouterr().out


def test_its_view_is_the_pipelines_own_step(drift):
    """A network whose prediction is known: the velocity from one video to noise gives that video back."""
    pipe = drift.tiny()
    view = view_of(pipe)
    x_0, eps = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pipe.unet.forward = lambda x_t, t, image, return_dict: (eps - x_0,)
    level = Level(0.3, 0.7)
    torch.testing.assert_close(view.predict_clean(view.add_noise(x_0, eps, level), level, None), x_0)
    assert view.level("0.86T").sigma == pytest.approx(0.86)


def test_start_and_removal(drift):
    pipe, photo = drift.tiny(), Image.effect_noise((64, 64), 90).convert("RGB")
    pipe.set_progress_bar_config(disable=True)

    def frames():
        return np.stack(pipe(photo, generator=torch.Generator().manual_seed(0)).frames[0])

    plain = frames()
    unleak.apply(pipe, start="1.0T")
    assert np.array_equal(frames(), plain)
    unleak.apply(pipe, motion="medium")
    assert not np.array_equal(frames(), plain)
    unleak.remove(pipe)
    assert np.array_equal(frames(), plain)


def test_generate_and_stats(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((64, 64), 90).convert("RGB").save("photo.png")
    size = ["--size", "64x64", "--num-frames", "4"]
    assert main(["generate", "photo.png", "--model", str(folder), "--start", "0.9T", *size]) == 0
    (video,) = Path().glob("**/photo*.mp4")
    assert read_video(video).frames.shape == (4, 64, 64, 3)
    Path("clips").mkdir()
    for k in range(2):
        frames = np.random.default_rng(k).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
        write_video(frames, Path(f"clips/{k}.mp4"), fps=8)
    words = ["stats", "--model", str(folder), "--videos", "clips", "--out", "m.safetensors", "--workers", "0", *size]
    assert main(words) == 0
    assert unleak.LatentMoments.load("m.safetensors").shape == (4, 4, 8, 8)


def test_diagnose(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    texture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(texture).resize((24, 16)).resize((96, 64)))
    write_video(np.stack([texture[:, 3 * f :][:, :64] for f in range(8)]), Path("clips/pan.mp4"), fps=8)
    words = [
        "--videos",
        "clips",
        "--size",
        "64x64",
        "--num-frames",
        "4",
        "--fps",
        "8",
        "--start",
        "0.9T",
        "--steps",
        "9",
    ]
    assert main(["diagnose", "--model", str(folder), *words, "--out", "d"]) == 0
    record = json.loads(next(Path("d").rglob("diagnosis.json")).read_text())
    assert record["no_image"] == "a black picture"


def test_a_hostile_folder_gets_only_the_classes_that_its_pipeline_lists(drift, folder, tmp_path, monkeypatch, capfd):
    """The family's author chooses what a folder may name; what else is in its module, or installed, is not loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = "from pathlib import Path\nPath('hacked').touch()\nclass DriftNet:\n    pass\n"
    (tmp_path / "evil.py").write_text(code)
    Image.new("RGB", (64, 64)).save("photo.png")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["drift_example", "DriftNet"]
    hostile = [
        {"unet": ["evil", "DriftNet"]},
        {"unet": ["drift_example", "DriftPipeline"]},
        {"unet": ["drift_example", "DriftView"]},
        {"unet": ["drift_example", "FlowMatchEulerDiscreteScheduler"]},
        {"vae": ["drift_example", "AutoencoderKL"]},
        {"unet": ["drift_example.evil", "DriftNet"]},
        {"_class_name": "StableVideoDiffusionPipeline"},  # does not list DriftNet
        {"_class_name": "evil"},
        {"_class_name": ["evil", "DriftPipeline"]},
    ]
    for k, change in enumerate(hostile):
        mine = tmp_path / f"model{k}"
        shutil.copytree(folder, mine)
        (mine / "model_index.json").write_text(json.dumps(index | change))
        for place in (mine, mine / "unet"):
            (place / "evil.py").write_text(code)
            (place / "drift_example.py").write_text(code)
        assert main(["generate", "photo.png", "--model", str(mine), "--steps", "1"]) == 2, change
        assert capfd.readouterr().err.splitlines()[-1].startswith("error: "), change
        assert not (tmp_path / "hacked").exists(), change
        assert "evil" not in sys.modules


def test_what_cannot_be_registered(drift):
    family = Family("other", models=(ModelSpec("drift", "x", "OtherPipeline"),))
    with pytest.raises(ValueError, match="family other: drift is of the family drift already"):
        register_family(family)
    with pytest.raises(ValueError, match="family other: WanImageToVideoPipeline is of the family wan already"):
        register_family(Family("other", views={"WanImageToVideoPipeline": "a:b"}))
    with pytest.raises(ValueError, match="there is a family wan already"):
        register_family(Family("wan"))
    mine = Family("other", models=(replace(MODELS["drift"], name="other"),))
    register_family(mine)
    register_family(mine)  # as a module that is imported twice does
    assert "other" in MODELS
    unregister_family("other")
    assert "other" not in MODELS
