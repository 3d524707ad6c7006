"""The shipped nano model: small, whole, a real pipeline, and it shows what it is there to show."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline

import unleak
from unleak.animate.noise import initial_noise
from unleak.animate.sample import sample
from unleak.animate.settings import Settings
from unleak.data.image import fit_image, load_image
from unleak.data.pixels import to_unit
from unleak.families.nano.autoencoder import psnr
from unleak.measure.motion import camera_motion
from unleak.zoo.registry import find_model

PHOTO = Path(__file__).parents[2] / "examples" / "photo.jpg"
SPEC = find_model("nano")
HEIGHT, WIDTH, FRAMES = (SPEC.defaults[name] for name in ("height", "width", "num_frames"))


@pytest.fixture(scope="module")
def nano():
    return unleak.load("nano", device="cpu")


@pytest.fixture(scope="module")
def photo():
    return load_image(PHOTO)


def test_weights_are_sixteen_megabytes_at_most():
    files = list(Path(SPEC.source).rglob("*.safetensors"))
    assert len(files) >= 4
    assert sum(file.stat().st_size for file in files) <= 16e6


def test_every_part_is_stable_video_diffusions_own_class():
    index = json.loads((Path(SPEC.source) / "model_index.json").read_text())
    assert index["_class_name"] == StableVideoDiffusionPipeline.__name__
    assert index["unet"] == ["diffusers", "UNetSpatioTemporalConditionModel"]
    assert index["vae"] == ["diffusers", "AutoencoderKLTemporalDecoder"]
    assert index["image_encoder"] == ["transformers", "CLIPVisionModelWithProjection"]
    assert index["scheduler"] == ["diffusers", "EulerDiscreteScheduler"]


def test_the_card_names_sources_and_licences():
    card = (Path(SPEC.source) / "README.md").read_text()
    for word in ("gnome-backgrounds", "plasma-workspace-wallpapers", "mate-backgrounds", "licence", "held out"):
        assert word in card


@torch.inference_mode()
def test_autoencoder_keeps_a_photo_it_never_saw(nano, photo):
    image = to_unit(torch.from_numpy(np.asarray(fit_image(photo, HEIGHT, WIDTH)).copy())[None])
    decoded = nano.vae.decode(nano.vae.encode(image).latent_dist.mode(), num_frames=1).sample
    assert psnr(decoded, image).item() > 24  # the gate of 26 dB is for the mean over held-out photos


def test_moments_are_of_this_model(nano):
    noise = initial_noise(Settings.for_model(SPEC), SPEC)
    assert noise.moments.count > 10_000
    assert 0.5 < noise.moments.isotropic_variance < 1.5
    with unleak.applied(nano, start=SPEC.start, init=noise):
        pass


SEEDS = range(8)


@pytest.fixture(scope="module")
def videos(nano, photo):
    """Eight videos of the photo with each setting, from the same eight noises, at the pipeline's default guidance."""

    def animated(start):
        nano.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        images = [fit_image(photo, HEIGHT, WIDTH)] * len(SEEDS)
        with unleak.applied(nano, start=start):
            call = dict(SPEC.defaults, decode_chunk_size=FRAMES * len(SEEDS), generator=generators, output_type="np")
            return (np.asarray(nano(images, **call).frames) * 255).round().astype(np.uint8)

    return {"plain": animated("1.0T"), "fixed": animated(SPEC.start)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "fixed"])
def test_the_first_frame_is_the_photo(videos, photo, kind):
    first = np.asarray(fit_image(photo, HEIGHT, WIDTH)).astype(float)
    for video in videos[kind]:
        assert np.corrcoef(video[0].ravel(), first.ravel())[0, 1] > 0.9


def test_the_recommended_start_moves_what_the_plain_pipeline_keeps_still(videos):
    plain, fixed = (
        np.array([abs(np.nanmedian(camera_motion(video)[:, 0])) for video in videos[kind]])
        for kind in ("plain", "fixed")
    )
    assert (
        plain < 0.3
    ).sum() >= 5  # most of the plain videos hardly move: the clips it learned from move by 1 px/frame
    assert fixed.mean() > 1.5 * plain.mean()
    assert (fixed > 0.5).sum() > (plain > 0.5).sum()


def test_what_moves_persists(videos):
    for video in videos["fixed"]:
        pairs = camera_motion(video)
        assert np.isfinite(pairs).all()  # every frame is the one before it, moved
        moved = round(pairs[:, 0].sum())
        first, last = np.roll(video[0], moved, axis=1).astype(float), video[-1].astype(float)
        seen = slice(max(moved, 0), WIDTH + min(moved, 0))  # what was in the first frame and still is in the last
        there = np.corrcoef(first[:, seen].ravel(), last[:, seen].ravel())[0, 1]
        in_place = np.corrcoef(video[0].ravel(), last.ravel())[0, 1]
        assert there > 0.75  # the scene has moved, not dissolved ...
        assert abs(moved) < WIDTH / 16 or there > in_place + 0.2  # ... and is not where it was


def test_a_photo_becomes_a_video_through_the_front_door(nano, photo):
    settings = Settings.for_model(SPEC, seed=3)
    made = sample(nano, photo, settings, initial_noise(settings, SPEC))
    assert made.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert made.record["start"]["sigma"] == pytest.approx(20.0)
