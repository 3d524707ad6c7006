"""The next nano's recipe: its clips, the network it begins from, and a training that resumes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unleak
from unleak.core.initial import AnalyticInit
from unleak.families.nano.autoencoder import linear_autoencoder, principal_code
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
def clips(tmp_path_factory, recipe_modules):
    """A folder with three random canvases, for training and for testing, and a code of theirs."""
    canvases, _ = recipe_modules
    folder, g = tmp_path_factory.mktemp("clips"), torch.Generator().manual_seed(0)
    coarse = torch.randn(3, 3, 22, 22, generator=g).mul(0.4)
    drawn = torch.nn.functional.interpolate(coarse, canvases.SIDE, mode="bicubic").clamp(-1, 1)
    code = principal_code(drawn[..., :168, :168], channels=canvases.CHANNELS)
    save_file({"project": code.project, "offset": code.offset}, folder / "code.safetensors")
    for split in ("train", "test"):
        (folder / "canvases" / split).mkdir(parents=True)
        np.save(folder / "canvases" / split / "0000.npy", ((drawn + 1) * 127.5).round().byte().numpy())
    return folder


def test_the_frames_of_a_canvas_move_as_the_law_says(recipe_modules):
    canvases, _ = recipe_modules
    coarse = torch.randn(1, 3, 22, 22, generator=torch.Generator().manual_seed(0)).mul(0.4)
    canvas = torch.nn.functional.interpolate(coarse, canvases.SIDE, mode="bicubic")[0].clamp(-1, 1)
    for motion, (x, y) in enumerate(canvases.MOTIONS):
        frames = ((canvases.frames(canvas, motion)[:4] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        dx, dy, zoom, _ = np.median(camera_motion(frames), 0)
        assert (dx, dy, zoom) == pytest.approx((canvases.SPEED * x, canvases.SPEED * y, 0), abs=0.05)


def test_one_convolution_encodes_every_frame(recipe_modules, clips):
    canvases, pretrain = recipe_modules
    source = pretrain.Clips(clips, "test")
    canvas = torch.from_numpy(source.files[0][:1].copy()).float() / 127.5 - 1
    every = canvases.clips(source.code, canvas)[0]
    for motion in range(len(canvases.MOTIONS)):
        encoded = source.code.encode(canvases.frames(canvas[0], motion)).permute(0, 2, 3, 1)
        torch.testing.assert_close(every[motion], encoded, rtol=1e-4, atol=1e-4)


def test_the_oracle_is_sure_of_a_clean_clip_and_believes_the_law_in_noise(recipe_modules, clips):
    _, pretrain = recipe_modules
    every = pretrain.Clips(clips).draw(torch.Generator().manual_seed(0), 2)
    share, clean = pretrain.oracle(every[:, 3], torch.full((2,), 0.1), every, 0.85)
    assert share[:, 3].min() > 0.999
    torch.testing.assert_close(clean, every[:, 3], rtol=1e-3, atol=1e-3)
    share, mean = pretrain.oracle(1e4 * torch.randn_like(every[:, 0]), torch.full((2,), 1e4), every, 0.85)
    torch.testing.assert_close(share[:, 0], torch.full((2,), 0.85), rtol=0, atol=0.1)
    weighted = (share[:, :, None, None, None, None] * every).sum(1)
    torch.testing.assert_close(mean, weighted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_untrained_network_says_that_the_image_stays(recipe_modules):
    canvases, pretrain = recipe_modules
    unet = pretrain.denoiser()
    deviation = torch.linspace(2, 0.4, canvases.CHANNELS)
    pretrain.pass_image(unet, deviation)
    image = torch.randn(1, 16, 16, canvases.CHANNELS) * deviation
    network = FastDenoiser(unet, dtype=torch.float32, compiled=False)
    noise = torch.randn(1, 12, 16, 16, canvases.CHANNELS)
    out, _ = pretrain.predict(network, noise * 50, torch.tensor([50.0]), image)
    assert (out + image[:, None]).square().mean() < 0.1 * image.square().mean()


@pytest.mark.slow
def test_the_parts_become_a_pipeline_that_renders(recipe_modules, clips, tmp_path, monkeypatch):
    canvases, pretrain = recipe_modules
    import build

    monkeypatch.setattr(build, "_CANVASES", 8)
    linear_autoencoder(pretrain.Clips(clips).code, sample_size=128).half().save_pretrained(clips / "vae")
    pretrain.denoiser().half().save_pretrained(tmp_path / "unet")
    build.main(clips, tmp_path, tmp_path / "pipeline")
    assert AnalyticInit.from_pretrained(tmp_path / "pipeline" / "moments.safetensors").moments.count == 64
    pipe = unleak.load(str(tmp_path / "pipeline"), device="cpu")
    photo = Image.new("RGB", (128, 128), (90, 120, 60))
    frames = pipe(photo, num_frames=2, num_inference_steps=1, max_guidance_scale=1.0, output_type="np").frames[0]
    assert frames.shape == (2, canvases.SIZE, canvases.SIZE, 3)


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
