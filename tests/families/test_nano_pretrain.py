"""The next nano's recipe: its clips, the network it begins from, and a training that resumes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unleak.families.nano.fast import FastDenoiser
from unleak.measure.motion import camera_motion

RECIPES = Path(__file__).parents[2] / "recipes" / "nano"


@pytest.fixture(scope="module")
def recipe_modules():
    sys.path.insert(0, str(RECIPES))
    try:
        import canvases
        import pretrain

        yield canvases, pretrain
    finally:
        sys.path.remove(str(RECIPES))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One file of three random canvases' latents."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "latents" / "train").mkdir(parents=True)
    latents = np.random.default_rng(0).normal(size=(3, 67, 8, 8, 64)).astype("float16")
    np.save(folder / "latents" / "train" / "0000.npy", latents)
    return folder


def test_the_frames_of_a_canvas_move_as_the_law_says(recipe_modules):
    canvases, _ = recipe_modules
    coarse = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).mul(0.4).clamp(-1, 1)
    canvas = torch.nn.functional.interpolate(coarse, 322, mode="bicubic", align_corners=False)[0].clamp(-1, 1)
    frames = ((canvases.frames(canvas) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    speed, zoom = canvases.SPEED, canvases.ZOOM
    law = [(0, 0, 0), (speed, 0, 0), (-speed, 0, 0), (0, speed, 0), (0, -speed, 0), (0, 0, zoom), (0, 0, -zoom)]
    for rows, expected in zip(canvases.FRAMES, law, strict=True):
        dx, dy, grown, _ = np.median(camera_motion(frames[rows[:4]]), 0)
        assert (dx, dy) == pytest.approx(expected[:2], abs=0.03)
        assert grown == pytest.approx(expected[2], abs=0.001)


@torch.no_grad()
def test_the_untrained_network_says_that_the_image_stays(recipe_modules):
    _, pretrain = recipe_modules
    unet = pretrain.denoiser()
    pretrain.pass_image(unet, torch.linspace(3, 0.4, 64))
    image = torch.randn(1, 8, 8, 64) * torch.linspace(3, 0.4, 64)
    network = FastDenoiser(unet, dtype=torch.float32, compiled=False)
    out, _ = pretrain.predict(network, torch.randn(1, 12, 8, 8, 64) * 50, torch.tensor([50.0]), image)
    assert (out + image[:, None]).square().mean() < 0.1 * image.square().mean()


@pytest.mark.slow
def test_a_stopped_training_goes_on_as_if_it_had_not_been(recipe_modules, clips, tmp_path, monkeypatch):
    _, pretrain = recipe_modules
    monkeypatch.setattr(pretrain, "FastDenoiser", lambda unet: FastDenoiser(unet, compiled=False))
    recipe = pretrain.Recipe(clips=clips, output=tmp_path, batch=1, beta_m=1.0)
    whole = pretrain.Training(recipe)
    whole.advance()
    whole.save(tmp_path / "state.safetensors")
    resumed = pretrain.Training(recipe)
    resumed.load(tmp_path / "state.safetensors", step=1)
    assert whole.advance() == resumed.advance()
    for training, name in ((whole, "whole"), (resumed, "resumed")):
        training.save(tmp_path / f"{name}.safetensors")
    one, two = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "resumed.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
